//! The structure of `src`: a file imports from lower floors, and from its own folder without a circle. What a folder passes
//! on from a file of its own counts as that file. DESIGN.md says what stands on which floor.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The modules, from the ground up.
const FLOORS: [&[&str]; 9] = [
    &["text"],
    &["clock", "files", "process", "resp"],
    &["exchange", "interrupt"],
    &["lock", "net", "job"],
    &["config"],
    &["store", "report", "outcome"],
    &["run"],
    &["lib"],
    &["main"],
];

/// A file, as `lock` or `lock::lease`, and the files that it imports from.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// All files of `folder`, which are modules below `module`, with their text without comments and unit tests.
fn read(folder: &Path, module: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let own = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
        if path.is_dir() {
            read(&path, &own, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
            let code: String = code.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            found.insert(own.strip_suffix("::mod").map_or(own.clone(), str::to_owned), code);
        }
    }
}

/// The names in `list`, which is what stands behind `path::`: `a::{b, self}`, `{c, d::e}` or `*`.
fn names(prefix: &str, list: &str) -> Vec<String> {
    let list = list.trim();
    let join = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match list.split_once('{') {
        None => vec![join(list.split(" as ").next().unwrap().trim())],
        Some((before, rest)) => {
            let prefix = join(before.trim_end_matches("::")).trim_end_matches("::").to_owned();
            let inner = &rest[..rest.rfind('}').unwrap()];
            let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
            for (at, byte) in inner.bytes().enumerate() {
                match byte {
                    b'{' => depth += 1,
                    b'}' => depth -= 1,
                    b',' if depth == 0 => {
                        parts.push(&inner[start..at]);
                        start = at + 1;
                    }
                    _ => {}
                }
            }
            parts.push(&inner[start..]);
            let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
            parts.flat_map(|part| names(&prefix, part)).collect()
        }
    }
}

/// What `code` of the module `own` names of this crate, as paths from its root; what it passes on with `pub use` apart.
fn paths(own: &str, code: &str, is_folder: bool) -> (Vec<String>, Vec<String>) {
    let parent = if is_folder { own } else { own.rsplit_once("::").map_or("", |(parent, _)| parent) };
    let absolute = |path: &str| {
        let path = path.trim_end_matches("::self");
        if let Some(rest) = path.strip_prefix("crate::") {
            return Some(rest.to_owned());
        }
        path.strip_prefix("super::").map(|rest| names(parent, rest).remove(0))
    };
    let (mut used, mut passed) = (Vec::new(), Vec::new());
    let mut rest = String::new();
    for statement in code.split(';') {
        let start = statement.trim_start();
        let start = start.rsplit("\n}").next().unwrap_or(start).trim_start();
        let (is_public, list) = match (start.strip_prefix("pub use "), start.strip_prefix("use ")) {
            (Some(list), _) => (true, list),
            (_, Some(list)) => (false, list),
            _ => {
                rest.push_str(statement);
                continue;
            }
        };
        for name in names("", list) {
            // In a folder's own file, what is not from elsewhere is a child.
            let is_child = is_folder && !["std", "core", "crate", "super"].contains(&name.split("::").next().unwrap());
            let path = if is_child { Some(format!("{own}::{name}")) } else { absolute(&name) };
            if is_public { passed.extend(path) } else { used.extend(path) }
        }
    }
    // Paths in the code itself.
    for marker in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(marker) {
            let is_whole =
                !rest[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':');
            let path = rest[at..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap();
            used.extend(Some(path).filter(|_| is_whole).and_then(absolute));
        }
    }
    (used, passed)
}

/// Who imports from whom, by file.
fn imports() -> Imports {
    let mut code = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut code);
    let is_folder = |module: &str| code.keys().any(|other| other.starts_with(&format!("{module}::")));
    let all: BTreeMap<_, _> = code.iter().map(|(own, code)| (own, paths(own, code, is_folder(own)))).collect();
    // `lock::Lease` stands in `lock::lease`, from where `lock` passes it on.
    let passed: BTreeMap<String, String> = all
        .iter()
        .flat_map(|(own, (_, passed))| passed.iter().map(move |path| (own, path)))
        .map(|(own, path)| (format!("{own}::{}", path.rsplit("::").next().unwrap()), path.clone()))
        .collect();
    let file_of = |path: &str| {
        let mut path = passed.get(path).map_or(path, String::as_str);
        loop {
            if code.contains_key(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::")?.0;
        }
    };
    let of_one = |own: &str, used: &[String]| {
        used.iter().filter_map(|path| file_of(path)).filter(|file| file != own).collect::<BTreeSet<_>>()
    };
    all.iter().map(|(own, (used, _))| ((*own).clone(), of_one(own, used))).collect()
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap()
}

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&top(module)));
    found.unwrap_or_else(|| panic!("{module} stands on no floor: add it to tests/floors.rs and to DESIGN.md"))
}

/// A circle of imports, if there is one.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    fn visit(own: &str, imports: &Imports, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        if let Some(at) = way.iter().position(|seen| seen == own) {
            way.drain(..at);
            return true;
        }
        way.push(own.to_owned());
        for next in imports.get(own).into_iter().flatten() {
            if !done.contains(next) && visit(next, imports, way, done) {
                return true;
            }
        }
        done.insert(way.pop().unwrap());
        false
    }
    let (mut way, mut done) = (Vec::new(), BTreeSet::new());
    imports.keys().any(|own| !done.contains(own) && visit(own, imports, &mut way, &mut done)).then_some(way)
}

#[test]
fn no_import_points_up() {
    let imports = imports();
    assert!(imports["lock::lease"].contains("exchange"), "the imports are not read: {imports:?}");
    let mut wrong = Vec::new();
    for (own, used) in &imports {
        for other in used.iter().filter(|other| top(other) != top(own)) {
            if floor(other) >= floor(own) {
                wrong.push(format!("{own} imports {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "these point up or aside: {wrong:#?}");
}

#[test]
fn there_is_no_circle() {
    assert_eq!(circle(&imports()), None);
}

#[test]
fn a_circle_would_be_found() {
    let mut imports = imports();
    imports.get_mut("clock").unwrap().insert("lock::lease".to_owned());
    let way = circle(&imports).expect("lease uses the clock");
    assert!(way.contains(&"clock".to_owned()) && way.contains(&"lock::lease".to_owned()), "{way:?}");
}

#[test]
fn design_names_the_floors() {
    let design = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("DESIGN.md")).unwrap();
    for module in FLOORS[..7].iter().flat_map(|floor| floor.iter()) {
        assert!(design.contains(&format!("`{module}`")) || design.contains(&format!("`{module}.rs`")), "{module}");
    }
}
