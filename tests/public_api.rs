//! The library's face is kept in `tests/public-api.txt`: who changes it sees what of it changes.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::{Attribute, Fields, ImplItem, Item, Type, UseTree, Visibility};

const LISTING: &str = "tests/public-api.txt";
const UPDATE: &str = "TXFS_UPDATE_API";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn parse(path: &Path) -> Vec<Item> {
    syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap().items
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.is_dir() => sources(&path, found),
            Some(extension) if extension == "rs" => found.push(path),
            _ => {}
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Hidden from the documentation, or there with a feature alone.
fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute.meta.to_token_stream().to_string();
        text.starts_with("doc") && text.contains("hidden") || text.starts_with("cfg")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => &[],
    }
}

/// What a module exports that is not hidden: names of its own, and of others.
fn exported(file: &Path, names: &mut BTreeSet<String>) {
    let directory = match file.file_name().unwrap().to_str().unwrap() {
        "lib.rs" | "mod.rs" => file.parent().unwrap().to_path_buf(),
        _ => file.with_extension(""),
    };
    for item in parse(file).iter().filter(|item| !is_hidden(attributes(item))) {
        match item {
            Item::Use(item) if is_public(&item.vis) => used(&item.tree, names),
            Item::Mod(item) if is_public(&item.vis) => {
                let name = item.ident.to_string();
                let files = [directory.join(&name).join("mod.rs"), directory.join(format!("{name}.rs"))];
                exported(files.iter().find(|file| file.exists()).unwrap(), names);
            }
            item => names.extend(defined(item)),
        }
    }
}

fn used(tree: &UseTree, names: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => used(&path.tree, names),
        UseTree::Name(name) => drop(names.insert(name.ident.to_string())),
        UseTree::Rename(name) => drop(names.insert(name.rename.to_string())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| used(tree, names)),
        UseTree::Glob(_) => panic!("a glob tells nobody what is exported"),
    }
}

/// The name of a public definition.
fn defined(item: &Item) -> Option<String> {
    let (visibility, name) = match item {
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        Item::Fn(item) => (&item.vis, &item.sig.ident),
        _ => return None,
    };
    is_public(visibility).then(|| name.to_string())
}

/// Tokens as people write them.
fn shown(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (from, to) in [
        (" :: ", "::"),
        ("< ", "<"),
        (" <", "<"),
        (" >", ">"),
        (" ,", ","),
        (" :", ":"),
        ("& ", "&"),
        ("( ", "("),
        (" (", "("),
        (" )", ")"),
        ("[ ", "["),
        (" ]", "]"),
        (" ;", ";"),
        (",)", ")"),
        (":: ", "::"),
    ] {
        text = text.replace(from, to);
    }
    text
}

/// What there is to say of each exported name, in lines that begin with it.
struct Listing {
    exported: BTreeSet<String>,
    lines: BTreeSet<String>,
    /// The traits of each.
    traits: BTreeMap<String, BTreeSet<String>>,
    /// Where each name was found to be defined.
    homes: BTreeMap<String, Vec<PathBuf>>,
}

impl Listing {
    fn of_the_library() -> Self {
        let mut names = BTreeSet::new();
        exported(&root().join("src/lib.rs"), &mut names);
        let mut listing =
            Self { exported: names, lines: BTreeSet::new(), traits: BTreeMap::new(), homes: BTreeMap::new() };
        let mut files = Vec::new();
        sources(&root().join("src"), &mut files);
        files.sort();
        for file in files {
            for item in parse(&file).iter().filter(|item| !is_hidden(attributes(item))) {
                if let Some(name) = defined(item) {
                    listing.homes.entry(name).or_default().push(file.clone());
                }
                listing.item(item);
            }
        }
        for (name, traits) in std::mem::take(&mut listing.traits) {
            listing.add(format!("{name}: {}", Vec::from_iter(traits).join(", ")));
        }
        listing
    }

    fn is_exported(&self, name: &str) -> bool {
        self.exported.contains(name)
    }

    fn add(&mut self, line: String) {
        self.lines.insert(line);
    }

    fn is(&mut self, name: &str, of: &str) {
        self.traits.entry(name.to_owned()).or_default().insert(of.to_owned());
    }

    fn item(&mut self, item: &Item) {
        if let Item::Impl(item) = item {
            return self.implementation(item);
        }
        let Some(name) = defined(item).filter(|name| self.is_exported(name)) else { return };
        for derived in attributes(item).iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let derived = shown(&derived.meta.require_list().unwrap().tokens);
            derived.split(", ").for_each(|derived| self.is(&name, derived.rsplit("::").next().unwrap()));
        }
        if attributes(item).iter().any(|attribute| attribute.path().is_ident("non_exhaustive")) {
            self.add(format!("{name}: non-exhaustive"));
        }
        match item {
            Item::Struct(item) => {
                self.add(format!("{name}: struct {name}{}", shown(&item.generics)));
                self.fields(&name, &item.fields, false);
            }
            Item::Enum(item) => {
                self.add(format!("{name}: enum {name}{}", shown(&item.generics)));
                for variant in &item.variants {
                    let of = format!("{name}::{}", variant.ident);
                    self.add(of.clone());
                    self.fields(&of, &variant.fields, true);
                }
            }
            // What it has is exempt from semver, as lib.rs says.
            Item::Trait(item) => self.add(format!("{name}: trait {name}: {}", shown(&item.supertraits))),
            Item::Type(item) => self.add(format!("{name}: type {name}{} = {}", shown(&item.generics), shown(&item.ty))),
            Item::Fn(item) => self.add(format!("{name}: {}", shown(&item.sig))),
            _ => {}
        }
    }

    fn fields(&mut self, of: &str, fields: &Fields, all: bool) {
        for (index, field) in fields.iter().enumerate().filter(|(_, field)| all || is_public(&field.vis)) {
            let name = field.ident.as_ref().map_or_else(|| index.to_string(), ToString::to_string);
            self.add(format!("{of}.{name}: {}", shown(&field.ty)));
        }
    }

    fn implementation(&mut self, item: &syn::ItemImpl) {
        let Type::Path(of) = &*item.self_ty else { return };
        let name = of.path.segments.last().unwrap().ident.to_string();
        if !self.is_exported(&name) {
            return;
        }
        if let Some((_, of, _)) = &item.trait_ {
            // One of its own, which nobody else can name, is nobody's affair.
            let trait_name = of.segments.last().unwrap().ident.to_string();
            if !self.is_private(&trait_name) {
                self.is(&name, &shown(of.segments.last().unwrap()));
            }
            return;
        }
        for item in &item.items {
            match item {
                ImplItem::Fn(method) if is_public(&method.vis) && !is_hidden(&method.attrs) => {
                    self.add(format!("{name}::{}", shown(&method.sig)));
                }
                ImplItem::Const(item) if is_public(&item.vis) => {
                    self.add(format!("{name}::{}: {}", item.ident, shown(&item.ty)));
                }
                _ => {}
            }
        }
    }

    fn is_private(&self, of: &str) -> bool {
        self.homes.contains_key(of) && !self.is_exported(of)
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

#[test]
fn the_public_api_is_as_it_is_written_down() {
    let (file, now) = (root().join(LISTING), Listing::of_the_library().text());
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&file, &now).unwrap();
    }
    let before = fs::read_to_string(&file).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (old, new) = (lines(&before), lines(&now));
    let gone = old.difference(&new).map(|line| format!("- {line}\n"));
    let come = new.difference(&old).map(|line| format!("+ {line}\n"));
    let changes: String = gone.chain(come).collect();
    println!("{} lines", new.len());
    assert!(
        changes.is_empty() && new.len() > 300,
        "the public API is another than in {LISTING}:\n{changes}where that is meant, `{UPDATE}=1 cargo test --test public_api` writes \
         it anew, and CHANGELOG.md tells of it"
    );
}

#[test]
fn a_name_is_defined_once() {
    let listing = Listing::of_the_library();
    for name in &listing.exported {
        let homes = listing.homes.get(name).cloned().unwrap_or_default();
        assert!(homes.len() == 1, "{name} is exported, and defined in {homes:?}");
    }
}

/// What a function takes or returns a program has to be able to name.
#[test]
fn what_the_api_names_can_be_named() {
    let listing = Listing::of_the_library();
    for line in &listing.lines {
        let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        // These are types of a trait, or the standard library's, and something else in the library has the same name. What seals a
        // trait is not to be named.
        for word in words.filter(|word| !["Dir", "File", "Lock", "Read", "Sealed"].contains(word)) {
            assert!(!listing.is_private(word), "{word} is not exported: {line}");
        }
    }
}

/// A program that changes itself compiles anew what it uses of the engine, but for what goes by `compiled!`.
#[test]
fn what_is_generic_and_long_is_compiled_with_the_library() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let (mut by_compiled, mut long) = (0, Vec::new());
    for file in files {
        for item in parse(&file) {
            let Item::Impl(item) = item else { continue };
            if item.trait_.is_some()
                || !shown(&item.generics).contains("F : Fs") && !shown(&item.generics).contains("F: Fs")
            {
                continue;
            }
            for method in &item.items {
                let ImplItem::Fn(method) = method else { continue };
                let body = shown(&method.block);
                let is_compiled = body.contains("compiled!") || body.contains("compiled !");
                by_compiled += usize::from(is_compiled);
                // What is done in the middle is the program's own.
                let takes_closure = shown(&method.sig).contains("FnOnce");
                let is_long = method.block.stmts.len() > 3 && !is_compiled && !takes_closure;
                if is_public(&method.vis) && !is_hidden(&method.attrs) && is_long {
                    long.push(format!("{}: {}", file.display(), method.sig.ident));
                }
            }
        }
    }
    println!("{by_compiled} go by `compiled!`");
    assert!(long.is_empty() && by_compiled > 25, "{by_compiled} go by `compiled!`, and these do not: {long:#?}");
}

/// The command has words of its own for what a program calls, and a program cannot type a command.
#[test]
fn no_message_of_the_library_names_the_command() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
        for line in lines.filter(|line| !line.trim_start().starts_with("//") && !line.contains("sudo chown")) {
            let names_it = ["`txfs ", "`--", " --"].iter().any(|word| line.contains(word));
            assert!(!names_it, "{}: {line}", file.display());
        }
    }
}
