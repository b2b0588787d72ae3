//! The modules of each crate stand in layers: none imports one that imports it, directly or through others.

use srt_tests::pages::workspace as root;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What each module of a crate imports. A submodule counts as its parent.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The modules that a file imports by `use crate::…`.
fn imported(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for statement in source.split(';').filter_map(|text| text.split_once("use crate::")) {
        // The first name, or in `{a, b::{c, d}}` each name of the outermost braces.
        let mut depth = 0;
        let names = statement.1.split_inclusive([',', '{', '}']).map(|piece| {
            let at = depth;
            depth += piece.matches('{').count() as i32 - piece.matches('}').count() as i32;
            (at, piece.trim().trim_end_matches([',', '{', '}']))
        });
        let braced = statement.1.trim_start().starts_with('{');
        for (_, name) in names.filter(|(at, _)| *at == i32::from(braced)) {
            found.extend(name.split("::").next().filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    found
}

fn read(directory: &Path, module: Option<&str>, imports: &mut Imports) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let module = module.unwrap_or(&stem);
        if path.is_dir() {
            read(&path, Some(module), imports);
        } else {
            let source = fs::read_to_string(&path).expect("a source");
            let others = imported(&source).into_iter().filter(|name| name != module);
            imports.entry(module.to_owned()).or_default().extend(others);
        }
    }
}

/// The modules that are in a circle, or import one that is.
fn in_circles(mut imports: Imports) -> BTreeSet<String> {
    loop {
        let free = |(name, others): (&String, &BTreeSet<String>)| {
            others.iter().all(|other| !imports.contains_key(other)).then(|| name.clone())
        };
        let Some(free) = imports.iter().find_map(free) else { return imports.into_keys().collect() };
        imports.remove(&free);
    }
}

#[test]
fn no_module_imports_one_that_imports_it() {
    for package in ["srt-common", "srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "srt-connect"] {
        let mut imports = Imports::new();
        read(&root().join(package).join("src"), None, &mut imports);
        // All of them import their error type or their options.
        assert!(imports.values().filter(|others| !others.is_empty()).count() > 2, "{package}: {imports:?}");
        let circles = in_circles(imports);
        assert!(circles.is_empty(), "{package}: {circles:?}");
    }
}

#[test]
fn a_circle_is_found() {
    let source =
        "use crate::a::{self, X};\nuse crate::{b, c::{Y, Z},\n d};\nuse std::x;\n fn f() { crate::e(); }";
    assert_eq!(imported(source).into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    let imports = [("a", "b"), ("b", "c"), ("c", "b"), ("d", "e"), ("e", "")].map(|(name, other)| {
        (
            name.to_owned(),
            BTreeSet::from([other.to_owned()]).into_iter().filter(|other| !other.is_empty()).collect(),
        )
    });
    assert_eq!(in_circles(imports.into_iter().collect()).into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
}
