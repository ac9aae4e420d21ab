//! Any bytes as a path: what is accepted stays below the directory it is resolved in, and order is the order of the tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::{Component, Path};
use txfs::RelPath;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (one, other) = input;
    let Ok(path) = RelPath::new(one) else {
        assert!(postcard::from_bytes::<RelPath>(&encoded(one)).is_err() || one.is_empty());
        return;
    };
    assert!(path.as_path().components().all(|component| matches!(component, Component::Normal(_))));
    assert!(path.components().all(|name| !name.is_empty() && name.len() <= 255 && !name.contains(&0)));
    assert_eq!(path.as_path().as_os_str().len(), one.len());
    assert_eq!(path.parent().join(path.name()).expect("its own name"), path);
    assert!(path.under(Path::new("/root")).starts_with("/root"));
    assert!(!path.to_string().contains(char::is_control));
    assert!(path.ancestors().all(|above| path.is_below(&above) && above < path));
    let decoded: RelPath = postcard::from_bytes(&encoded(one)).expect("a valid path decodes");
    assert_eq!(decoded, path);
    if let Ok(other) = RelPath::new(other) {
        let order = path.components().collect::<Vec<_>>().cmp(&other.components().collect::<Vec<_>>());
        assert_eq!(path.cmp(&other), order);
        assert_eq!(
            path.is_below(&other),
            path.as_path() != other.as_path() && path.as_path().starts_with(other.as_path())
        );
        if let Ok(joined) = path.join(other.as_bytes()) {
            assert!(joined.is_below(&path) && !other.as_bytes().contains(&b'/'));
        }
    }
});

fn encoded(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = postcard::to_stdvec(&bytes.len()).expect("a number");
    encoded.extend(bytes);
    encoded
}
