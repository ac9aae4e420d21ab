//! JSON objects, one a line.
//!
//! Invariants:
//! 1. Every object stands on a line of its own and begins with `"v":1`. What a terminal would not show is written as `\uXXXX` there.
//! 2. JSON has no bytes: a path `X` that is not UTF-8 is written lossily as `X`, with its exact bytes in hexadecimal as
//!    `X_bytes`. For a list both are lists.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::Value;
use txfs::{RelPath, is_hidden};

/// A JSON object that keeps the order of its fields.
pub(crate) struct Object {
    text: String,
}

impl Object {
    /// An object for a line of its own.
    pub(crate) fn new() -> Self {
        Self { text: "{\"v\":1".to_owned() }
    }

    /// An object inside another.
    pub(crate) fn part() -> Self {
        Self { text: "{".to_owned() }
    }

    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.put(name, value.into());
        self
    }

    /// The output that a command is about.
    pub(crate) fn output(self, output: &Path) -> Self {
        self.path("output", output.as_os_str().as_bytes())
    }

    /// Bytes that are a path; see invariant 2.
    pub(crate) fn path(mut self, name: &str, bytes: &[u8]) -> Self {
        self.put(name, String::from_utf8_lossy(bytes));
        if std::str::from_utf8(bytes).is_err() {
            self.put(&format!("{name}_bytes"), hexadecimal(bytes));
        }
        self
    }

    /// A path in the output, `.` for the output itself.
    pub(crate) fn relative(self, name: &str, path: &RelPath) -> Self {
        self.path(name, in_output(path))
    }

    /// Paths in the output.
    pub(crate) fn relatives(self, name: &str, paths: &[RelPath]) -> Self {
        self.paths(name, paths.iter().map(in_output))
    }

    pub(crate) fn paths<'a>(mut self, name: &str, paths: impl Iterator<Item = &'a [u8]>) -> Self {
        let paths: Vec<_> = paths.collect();
        let lossy: Vec<_> = paths.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
        self.put(name, lossy);
        if paths.iter().any(|bytes| std::str::from_utf8(bytes).is_err()) {
            let exact: Vec<_> = paths.iter().map(|bytes| hexadecimal(bytes)).collect();
            self.put(&format!("{name}_bytes"), exact);
        }
        self
    }

    pub(crate) fn part_of(mut self, name: &str, part: Object) -> Self {
        self.name(name);
        self.text.push_str(&part.text);
        self.text.push('}');
        self
    }

    pub(crate) fn parts(mut self, name: &str, parts: impl Iterator<Item = Object>) -> Self {
        self.name(name);
        let parts: Vec<_> = parts.map(|part| part.text + "}").collect();
        let _ = write!(self.text, "[{}]", parts.join(","));
        self
    }

    /// The object as a line.
    pub(crate) fn line(&self) -> String {
        visible(&self.text).into_owned() + "}"
    }

    fn name(&mut self, name: &str) {
        let comma = if self.text.ends_with('{') { "" } else { "," };
        let _ = write!(self.text, "{comma}{}:", Value::from(name));
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.name(name);
        let _ = write!(self.text, "{}", value.into());
    }
}

/// JSON with every character of a string that does not show escaped; there are none outside of strings.
fn visible(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

fn in_output(path: &RelPath) -> &[u8] {
    if path.is_root() { b"." } else { path.as_bytes() }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_their_order_and_every_byte() {
        let inner = Object::part().field("b", 1).field("a", Value::Null);
        let object = Object::new().path("z", b"ok\n").path("p", b"\xff").part_of("i", inner);
        let text = object.parts("l", [Object::part()].into_iter()).text + "}";
        assert_eq!(text, r#"{"v":1,"z":"ok\n","p":"�","p_bytes":"ff","i":{"b":1,"a":null},"l":[{}]}"#);
        serde_json::from_str::<Value>(&text).unwrap();
    }

    #[test]
    fn what_does_not_show_is_escaped_and_means_the_same() {
        let name = "a\u{202e}\u{9b}\u{7f}\u{e0041}b";
        let text = Object::new().path("p", name.as_bytes()).text + "}";
        let shown = visible(&text);
        assert_eq!(shown, r#"{"v":1,"p":"a\u202e\u009b\u007f\udb40\udc41b"}"#);
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["p"], name);
    }
}
