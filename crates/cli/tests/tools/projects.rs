//! Small projects of tools that people build sites and programs with, each with the tool's own defaults.

/// A project and how it is built: in place, by what one would type.
pub(crate) struct Project {
    pub(crate) name: &'static str,
    /// What has to answer, as arguments of `sh -c`, for the tool to be there.
    pub(crate) needs: &'static str,
    /// What makes the project.
    pub(crate) files: &'static [(&'static str, &'static str)],
    pub(crate) output: &'static str,
    pub(crate) build: &'static str,
    /// A change of one source.
    pub(crate) change: (&'static str, &'static str),
    /// What makes the build fail.
    pub(crate) mistake: (&'static str, &'static str),
}

pub(crate) const HUGO: Project = Project {
    name: "hugo",
    needs: "hugo version",
    files: &[
        ("config.toml", "baseURL = 'https://example.org/'\ntitle = 'A site'\n"),
        ("content/_index.md", "---\ntitle: Start\n---\nHello\n"),
        ("content/post/one.md", "---\ntitle: One\ndate: 2024-01-01\n---\nText\n"),
        ("content/post/two.md", "---\ntitle: Two\ndate: 2024-01-02\n---\nText\n"),
        ("layouts/_default/baseof.html", "<html><title>{{ .Title }}</title>{{ block \"main\" . }}{{ end }}</html>\n"),
        ("layouts/_default/single.html", "{{ define \"main\" }}<p>{{ .Content }}</p>{{ end }}\n"),
        (
            "layouts/_default/list.html",
            "{{ define \"main\" }}{{ range .Pages }}<a>{{ .Title }}</a>{{ end }}{{ end }}\n",
        ),
        ("layouts/index.html", "{{ define \"main\" }}{{ .Content }}{{ end }}\n"),
        ("static/style.css", "p { color: blue }\n"),
    ],
    output: "public",
    build: "hugo --quiet",
    change: ("content/post/two.md", "---\ntitle: Two\ndate: 2024-01-02\n---\nChanged\n"),
    mistake: ("layouts/index.html", "{{ define \"main\" }}{{ no such thing }}{{ end }}\n"),
};

pub(crate) const MKDOCS: Project = Project {
    name: "mkdocs",
    needs: "mkdocs --version",
    files: &[
        ("mkdocs.yml", "site_name: A site\nuse_directory_urls: true\n"),
        ("docs/index.md", "# Start\n\nHello\n"),
        ("docs/a.md", "# A\n\nText\n"),
    ],
    output: "site",
    build: "mkdocs build --quiet",
    change: ("docs/a.md", "# A\n\nChanged\n"),
    mistake: ("mkdocs.yml", "site_name: A site\ntheme: nosuchtheme\n"),
};

pub(crate) const SPHINX: Project = Project {
    name: "sphinx",
    needs: "sphinx-build --version",
    files: &[
        ("docs/conf.py", "project = 'A project'\nlanguage = 'en'\n"),
        ("docs/index.rst", "Start\n=====\n\n.. toctree::\n\n   a\n"),
        ("docs/a.rst", "A\n=\n\nText\n"),
    ],
    output: "_build",
    build: "sphinx-build -M html docs _build -q -W",
    change: ("docs/a.rst", "A\n=\n\nChanged\n"),
    mistake: ("docs/a.rst", "A\n=\n\n.. nosuchdirective::\n"),
};

pub(crate) const VITE: Project = Project {
    name: "vite",
    needs: "test -x \"$TXFS_TOOLS/node_modules/.bin/vite\"",
    files: &[
        (
            "package.json",
            "{ \"name\": \"a-site\", \"private\": true, \"type\": \"module\", \"scripts\": { \"build\": \"vite build --logLevel warn\" } }\n",
        ),
        ("index.html", "<html><body><script type=\"module\" src=\"/main.js\"></script></body></html>\n"),
        ("main.js", "import './style.css'\nimport { text } from './text.js'\ndocument.body.append(text)\n"),
        ("style.css", "p { color: blue }\n"),
        ("text.js", "export const text = 'Hello'\n"),
        ("public/robots.txt", "User-agent: *\n"),
    ],
    output: "dist",
    build: "ln -sfn \"$TXFS_TOOLS/node_modules\" node_modules && npm run --silent build",
    change: ("text.js", "export const text = 'Changed'\n"),
    mistake: ("main.js", "import { no } from './nosuch.js'\n"),
};

pub(crate) const ELEVENTY: Project = Project {
    name: "eleventy",
    needs: "test -x \"$TXFS_TOOLS/node_modules/.bin/eleventy\"",
    files: &[
        ("index.md", "---\ntitle: Start\n---\n# Hello\n"),
        ("a.md", "# A\n"),
        ("_includes/base.njk", "<html>{{ content | safe }}</html>\n"),
    ],
    output: "_site",
    build: "\"$TXFS_TOOLS/node_modules/.bin/eleventy\" --quiet",
    change: ("a.md", "# Changed\n"),
    mistake: ("a.md", "---\nlayout: nosuch.njk\n---\n"),
};

pub(crate) const DOXYGEN: Project = Project {
    name: "doxygen",
    needs: "doxygen --version",
    files: &[
        (
            "Doxyfile",
            "PROJECT_NAME=A\nINPUT=src\nOUTPUT_DIRECTORY=docs\nGENERATE_LATEX=NO\nQUIET=YES\nHAVE_DOT=NO\nWARN_AS_ERROR=YES\nHTML_TIMESTAMP=NO\n",
        ),
        ("src/a.h", "/** \\file\n * A file. */\n/** A function. */\nint a(void);\n"),
    ],
    output: "docs",
    build: "mkdir -p docs && doxygen",
    change: ("src/a.h", "/** \\file\n * A file. */\n/** A changed function. */\nint a(void);\n"),
    mistake: ("src/a.h", "/** \\file\n * A file. */\n/** A function. \\nosuchcommand */\nint a(void);\n"),
};

pub(crate) const CARGO_DOC: Project = Project {
    name: "cargo doc",
    needs: "cargo --version",
    files: &[
        ("Cargo.toml", "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n"),
        ("src/lib.rs", "//! A crate.\n/// A function.\npub fn a() {}\n"),
    ],
    output: "target",
    build: "cargo doc --quiet --offline",
    change: ("src/lib.rs", "//! A crate.\n/// A changed function.\npub fn a() {}\n"),
    mistake: ("src/lib.rs", "pub fn a( {\n"),
};

pub(crate) const MAKE: Project = Project {
    name: "make",
    needs: "make --version && cc --version",
    files: &[
        (
            "Makefile",
            "all: build/hello\nbuild/hello: build/main.o build/text.o\n\tcc -o $@ $^\nbuild/%.o: %.c\n\tmkdir -p build\n\tcc -c -o $@ $<\n",
        ),
        ("main.c", "#include <stdio.h>\nextern const char *text;\nint main(void) { return puts(text) < 0; }\n"),
        ("text.c", "const char *text = \"Hello\";\n"),
    ],
    output: "build",
    build: "make -s",
    change: ("text.c", "const char *text = \"Changed\";\n"),
    mistake: ("text.c", "const char *text = ;\n"),
};
