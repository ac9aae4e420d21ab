//! What a project is built with, as far as its files tell.
//!
//! Nothing is run, and nothing is changed.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// What a tool makes, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) tool: &'static str,
    /// The output, from the project's directory.
    pub(crate) output: String,
    pub(crate) command: String,
    /// What of it nobody wants published.
    pub(crate) exclude: Option<&'static str>,
}

/// What is built in a directory, the likeliest first; each output once.
pub(crate) fn look(dir: &Path) -> Vec<Found> {
    let tools = [vite, eleventy, hugo, mkdocs, mdbook, sphinx, cargo_doc];
    let mut found: Vec<Found> = tools.iter().filter_map(|tool| tool(dir)).collect();
    if found.is_empty() {
        found.extend(make(dir));
    }
    let mut outputs = Vec::new();
    found.retain(|found| {
        let is_new = !outputs.contains(&found.output);
        outputs.push(found.output.clone());
        is_new
    });
    found
}

fn vite(dir: &Path) -> Option<Found> {
    let config = first(dir, &["js", "ts", "mjs", "mts", "cjs", "cts"].map(|end| format!("vite.config.{end}")));
    let package = Package::read(dir);
    if config.is_none() && !package.depends_on("vite") {
        return None;
    }
    let output = config.and_then(|text| setting(&text, "outDir")).unwrap_or_else(|| "dist".to_owned());
    Some(Found { tool: "vite", output, command: package.build(dir, "npx vite build"), exclude: None })
}

fn eleventy(dir: &Path) -> Option<Found> {
    let names =
        [".eleventy.js", "eleventy.config.js", "eleventy.config.mjs", "eleventy.config.cjs", "eleventy.config.ts"];
    let config = first(dir, &names);
    let package = Package::read(dir);
    if config.is_none() && !package.depends_on("@11ty/eleventy") {
        return None;
    }
    let output = config.and_then(|text| setting(&text, "output")).unwrap_or_else(|| "_site".to_owned());
    Some(Found { tool: "eleventy", output, command: package.build(dir, "npx @11ty/eleventy"), exclude: None })
}

fn hugo(dir: &Path) -> Option<Found> {
    let names =
        ["hugo.toml", "hugo.yaml", "hugo.yml", "hugo.json", "config/_default/hugo.toml", "config/_default/hugo.yaml"];
    let of_old = || first(dir, &["config.toml", "config.yaml"]).filter(|_| dir.join("archetypes").is_dir());
    let config = first(dir, &names).or_else(of_old)?;
    let output = setting(&config, "publishDir").unwrap_or_else(|| "public".to_owned());
    Some(Found { tool: "hugo", output, command: "hugo".to_owned(), exclude: None })
}

fn mkdocs(dir: &Path) -> Option<Found> {
    let config = first(dir, &["mkdocs.yml", "mkdocs.yaml"])?;
    let output = setting(&config, "site_dir").unwrap_or_else(|| "site".to_owned());
    Some(Found { tool: "mkdocs", output, command: "mkdocs build".to_owned(), exclude: None })
}

fn mdbook(dir: &Path) -> Option<Found> {
    let config = first(dir, &["book.toml"])?;
    let output = setting(&config, "build-dir").unwrap_or_else(|| "book".to_owned());
    Some(Found { tool: "mdbook", output, command: "mdbook build".to_owned(), exclude: None })
}

fn sphinx(dir: &Path) -> Option<Found> {
    let is_sphinx = |text: &String| ["sphinx", "extensions", "html_theme"].iter().any(|word| text.contains(word));
    let places = [
        (".", "_build"),
        ("docs", "docs/_build"),
        ("doc", "doc/_build"),
        ("source", "build"),
        ("docs/source", "docs/build"),
    ];
    let has_one = |place: &&(&str, &str)| first(&dir.join(place.0), &["conf.py"]).is_some_and(|text| is_sphinx(&text));
    let (source, build) = places.iter().find(has_one)?;
    let output = format!("{build}/html");
    // Beside the output: where it is by default the doctrees would be published, too.
    let command = format!("sphinx-build -b html -d {build}/doctrees {source} {output}");
    Some(Found { tool: "sphinx", output, command, exclude: None })
}

fn cargo_doc(dir: &Path) -> Option<Found> {
    first(dir, &["Cargo.toml"])?;
    let (output, command) = ("target/doc".to_owned(), "cargo doc --no-deps".to_owned());
    Some(Found { tool: "cargo doc", output, command, exclude: Some("/.lock") })
}

fn make(dir: &Path) -> Option<Found> {
    first(dir, &["GNUmakefile", "makefile", "Makefile"])?;
    let likely = ["dist", "public", "site", "_site", "html", "out", "build"];
    let output = likely.into_iter().find(|name| dir.join(name).is_dir()).unwrap_or("dist").to_owned();
    Some(Found { tool: "make", output, command: "make".to_owned(), exclude: None })
}

/// What `package.json` says.
struct Package(Value);

impl Package {
    fn read(dir: &Path) -> Self {
        let text = fs::read_to_string(dir.join("package.json")).unwrap_or_default();
        Self(serde_json::from_str(&text).unwrap_or_default())
    }

    fn depends_on(&self, name: &str) -> bool {
        ["dependencies", "devDependencies"].iter().any(|kind| self.0[kind].get(name).is_some())
    }

    /// The script that builds, run by the tool that the project's lock file is of.
    fn build(&self, dir: &Path, otherwise: &str) -> String {
        if !self.0["scripts"]["build"].is_string() {
            return otherwise.to_owned();
        }
        let locks = [("pnpm-lock.yaml", "pnpm"), ("yarn.lock", "yarn"), ("bun.lock", "bun"), ("bun.lockb", "bun")];
        let tool = locks.iter().find(|(lock, _)| dir.join(lock).exists()).map_or("npm", |(_, tool)| tool);
        format!("{tool} run build")
    }
}

/// The text of the first of some files that is there.
fn first(dir: &Path, names: &[impl AsRef<Path>]) -> Option<String> {
    names
        .iter()
        .find_map(|name| fs::read(dir.join(name)).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What a file of settings, in whatever language, gives a name: a path below the directory that it is in.
fn setting(text: &str, name: &str) -> Option<String> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(name).find_map(|(at, _)| {
        let (before, rest) = (&text[..at], &text[at + name.len()..]);
        let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
        if before.ends_with(is_of_name) || line.starts_with('#') || line.starts_with("//") {
            return None;
        }
        let rest = rest.trim_start_matches(['"', '\'']).trim_start();
        let rest = rest.strip_prefix(':').or_else(|| rest.strip_prefix('='))?.trim_start_matches([' ', '\t']);
        let value = match rest.chars().next()? {
            quote @ ('"' | '\'') => rest[1..].split(quote).next()?,
            _ => rest.split(|c: char| c.is_whitespace() || ",;}#".contains(c)).next()?,
        };
        let value = value.trim_start_matches("./").trim_end_matches('/');
        let is_path = value.chars().all(|c| is_of_name(c) || c == '/' || c == '.');
        let is_below = !value.is_empty() && !value.starts_with('/') && value.split('/').all(|part| part != "..");
        (is_path && is_below).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_in_whatever_language() {
        for (text, expected) in [
            ("build: { outDir: './out/' }", Some("out")),
            ("  build: {\n    \"outDir\": \"a/b\",\n}", Some("a/b")),
            ("outDir = \"x\"", Some("x")),
            ("outDir: y # here", Some("y")),
            ("// outDir: 'no'\nmyoutDir: 'no'", None),
            ("outDir: path.join(__dirname, 'x')", None),
            ("outDir: '../x'", None),
            ("outDir: '/x'", None),
            ("outDir", None),
        ] {
            assert_eq!(setting(text, "outDir").as_deref(), expected, "{text}");
        }
    }

    fn found(files: &[(&str, &str)]) -> Vec<(&'static str, String, String)> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        look(dir.path()).into_iter().map(|found| (found.tool, found.output, found.command)).collect()
    }

    #[test]
    fn every_tool_is_known_by_its_files() {
        let scripts = r#"{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "7"}}"#;
        for (files, tool, output, command) in [
            (&[("vite.config.ts", "export default {build: {outDir: 'www'}}")][..], "vite", "www", "npx vite build"),
            (&[("package.json", scripts)], "vite", "dist", "npm run build"),
            (&[("package.json", scripts), ("pnpm-lock.yaml", "")], "vite", "dist", "pnpm run build"),
            (&[("eleventy.config.js", "")], "eleventy", "_site", "npx @11ty/eleventy"),
            (&[("hugo.toml", "publishDir = 'out'")], "hugo", "out", "hugo"),
            (&[("mkdocs.yml", "site_name: x")], "mkdocs", "site", "mkdocs build"),
            (&[("book.toml", "[build]\nbuild-dir = \"html\"")], "mdbook", "html", "mdbook build"),
            (
                &[("docs/conf.py", "extensions = []")],
                "sphinx",
                "docs/_build/html",
                "sphinx-build -b html -d docs/_build/doctrees docs docs/_build/html",
            ),
            (&[("Cargo.toml", "")], "cargo doc", "target/doc", "cargo doc --no-deps"),
            (&[("Makefile", ""), ("public/x", "")], "make", "public", "make"),
        ] {
            assert_eq!(found(files), [(tool, output.to_owned(), command.to_owned())], "{files:?}");
        }
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[("Cargo.toml", ""), ("book.toml", ""), ("Makefile", "")]).len(), 2);
    }
}
