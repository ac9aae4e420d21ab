//! Groups of users, by name and by number, and the stores that they share.

use nix::unistd::{Gid, Group};
use serde_json::Value;
use txfs::Store;

use crate::talk::error::Failure;
use crate::talk::json::Object;
use crate::talk::output::Ui;

/// The number of a group that the user names; a name comes before a number.
pub(crate) fn parse(text: &str) -> Result<u32, String> {
    match (Group::from_name(text), text.parse::<u32>()) {
        (Ok(Some(group)), _) => Ok(group.gid.as_raw()),
        // The last number means none.
        (_, Ok(number)) if number != u32::MAX => Ok(number),
        (Err(error), _) => Err(format!("the groups cannot be read: {}", error.desc())),
        _ => Err("there is no such group".to_owned()),
    }
}

fn name(group: u32) -> Option<String> {
    Group::from_gid(Gid::from_raw(group)).ok().flatten().map(|group| group.name)
}

/// A group for people.
pub(crate) fn describe(group: u32) -> String {
    match name(group) {
        Some(name) => format!("{name} ({group})"),
        None => group.to_string(),
    }
}

/// Adds to a JSON object with which group a store is shared.
pub(crate) fn shared(object: Object, store: Option<&Store>) -> Object {
    match store.and_then(Store::shared_with) {
        Some(group) => object.part_of("shared", Object::part().field("group", group).field("name", name(group))),
        None => object.field("shared", Value::Null),
    }
}

/// Shares a store, unless it is, and says so.
pub(crate) fn share(ui: &Ui, store: Store, wanted: Option<u32>) -> Result<Store, Failure> {
    let was_shared = store.shared_with().is_some() && store.head()?.is_some();
    let store = store.share(wanted)?;
    if let Some(group) = store.shared_with().filter(|_| !was_shared) {
        let (output, group) = (ui.name(store.output()), describe(group));
        ui.say(format_args!("shared {output} with group {group}: its members publish to it with --shared"));
    }
    ui.rescued(&store.take_rescued());
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_or_numbered() {
        assert_eq!(parse("root"), Ok(0));
        assert_eq!(parse("4000000000"), Ok(4_000_000_000));
        assert!(parse("no such group").is_err() && parse("4294967295").is_err() && parse("-1").is_err());
        assert_eq!(describe(0), "root (0)");
    }
}
