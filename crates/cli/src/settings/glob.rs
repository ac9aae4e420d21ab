//! The globs of `--exclude`, which mean what they mean in a .gitignore.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// What one GLOB says.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    glob: GlobSet,
    is_for_directories: bool,
}

impl Pattern {
    pub(crate) fn matches(&self, path: &Path, is_directory: bool) -> bool {
        (is_directory || !self.is_for_directories) && self.glob.is_match(path)
    }
}

/// A GLOB as .gitignore means it.
pub(crate) fn parse(text: &str) -> Result<Pattern, String> {
    if text.starts_with('!') {
        return Err(
            "nothing can be taken back that another excludes: say `\\!…` for a name that begins with `!`".to_owned()
        );
    }
    let (path, is_for_directories) = match text.strip_suffix('/') {
        Some(path) => (path, true),
        None => (text, false),
    };
    let from_root = path.strip_prefix('/').unwrap_or(path);
    if from_root.is_empty() {
        return Err("this names nothing in the output".to_owned());
    }
    let whole = if path.contains('/') { from_root.to_owned() } else { format!("**/{path}") };
    let glob = GlobBuilder::new(&whole).literal_separator(true).backslash_escape(true).build();
    let glob = glob.and_then(|glob| GlobSetBuilder::new().add(glob).build());
    let glob = glob.map_err(|error| error.kind().to_string())?;
    Ok(Pattern { glob, is_for_directories })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_mean_what_they_mean_in_a_gitignore() {
        let excludes =
            |glob: &str, path: &str, is_directory| parse(glob).unwrap().matches(Path::new(path), is_directory);
        for (glob, path, is_directory, expected) in [
            ("*.map", "app.js.map", false, true),
            ("*.map", "deep/er/app.map", false, true),
            ("*.map", "map", false, false),
            ("/.lock", ".lock", false, true),
            ("/.lock", "a/.lock", false, false),
            ("a/*.txt", "a/b.txt", false, true),
            ("a/*.txt", "a/b/c.txt", false, false),
            ("a/*.txt", "b/a/b.txt", false, false),
            ("a/**", "a/b/c.txt", false, true),
            ("**/x/y", "a/b/x/y", false, true),
            ("cache/", "a/cache", true, true),
            ("cache/", "a/cache", false, false),
            ("\\!x", "!x", false, true),
        ] {
            assert_eq!(excludes(glob, path, is_directory), expected, "{glob} of {path}");
        }
    }

    #[test]
    fn a_glob_that_says_nothing_is_refused() {
        for glob in ["", "/", "!a", "[", "{a"] {
            assert!(parse(glob).is_err(), "{glob}");
        }
    }
}
