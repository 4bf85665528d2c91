//! The layers, held by a test: a module imports only what stands above it in `src/lib.rs`, and what is the
//! business of one place stands nowhere else. It reads the source as text, without comments and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules, uppermost first. Those of one line don't know each other.
const ORDER: [&[&str]; 19] = [
    &["error", "frozen", "sys"],
    &["report"],
    &["metrics"],
    &["compression", "encryption"],
    &["config"],
    &["criu", "image", "store", "trigger"],
    &["checkpoint", "prometheus"],
    &["restore"],
    &["service"],
    &["inspect"],
    &["supervise"],
    &["agent"],
    &["forensic"],
    &["install"],
    &["status"],
    &["ask", "doctor"],
    &["role"],
    &["auto", "fuzzing"],
    &["lib"],
];

/// `error` and `sys` are everyone's, and `frozen` is the plain data that they and all others speak in.
const EVERYONES: [&str; 3] = ["error", "frozen", "sys"];

/// A source file without its comments and its `#[cfg(test)]` parts.
struct Source {
    /// Its path below `src/`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The module that it belongs to: `store` for `src/store/draft.rs`.
    fn module(&self) -> String {
        let first = self.path.components().next().expect("a path").as_os_str().to_string_lossy().into_owned();
        first.trim_end_matches(".rs").to_owned()
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// The modules of this crate that it names, as `crate::NAME` or in `use crate::{NAME, …}`.
    fn imports(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (at, _) in self.text.match_indices("crate::") {
            if self.text[..at]
                .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$')
            {
                continue;
            }
            let rest = &self.text[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(heads_of(group)),
                None => found.push(word(rest)),
            }
        }
        found.retain(|name| rank(name).is_some());
        found
    }
}

/// The first words of the members of a `{…}` group, whose opening brace is gone.
fn heads_of(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut is_head) = (Vec::new(), 0, true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => return heads,
            '}' => depth -= 1,
            ',' if depth == 0 => is_head = true,
            _ if is_head && character.is_alphabetic() => {
                heads.push(word(&group[at..]));
                is_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|layer| layer.contains(&module))
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).expect("a folder of the source").map(|entry| entry.expect("an entry"))
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = without_tests(&without_comments(&fs::read_to_string(&path).expect("text")));
                found.push(Source { path: path.strip_prefix(&root).expect("below src").to_owned(), text });
            }
        }
    }
    assert!(found.len() > 20, "this is not the source of selfdump");
    // What is a module only for tests (`#[cfg(test)] mod testing;`) is none of the program.
    found.retain(|source| !source.path.ends_with("testing.rs") && !source.path.ends_with("tests.rs"));
    found
}

/// Blanks line comments out. A `//` in a string would hide the rest of its line, which costs nothing here.
fn without_comments(text: &str) -> String {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned() + "\n";
    text.lines().map(code).collect()
}

/// Leaves out each item that is only there for tests: to its closing brace, or its semicolon.
fn without_tests(text: &str) -> String {
    let mut parts = text.split("#[cfg(test)]");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(&part[end_of_item(part)..]);
    }
    kept
}

fn end_of_item(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            // A brace within a string or a character may make it come early: the item stands at the end of
            // its file in this crate, so only a closing brace in the first column counts.
            '}' if depth > 0 && text[..at].ends_with('\n') => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[test]
fn a_module_imports_only_what_stands_above_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        let own = rank(&module)
            .unwrap_or_else(|| panic!("src/{} has no place in the order", source.path.display()));
        for import in source.imports() {
            let theirs = rank(&import).expect("one of ours");
            let allowed = import == module || EVERYONES.contains(&import.as_str()) || theirs < own;
            if !allowed {
                wrong.push(format!("src/{} imports {import}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_order_is_that_of_lib_rs() {
    let lib = sources().into_iter().find(|source| source.path == Path::new("lib.rs")).expect("lib.rs");
    let declared: Vec<&str> = lib
        .text
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert!(declared.len() > 10, "modules of lib.rs: {declared:?}");
    let ranks: Vec<usize> = declared
        .iter()
        .map(|name| rank(name).unwrap_or_else(|| panic!("{name} has no place in the order")))
        .collect();
    assert!(ranks.is_sorted(), "lib.rs has them in another order: {declared:?}");
}

/// Fails with every file, but those that `may` have it, in which one of `texts` stands as a whole word.
fn only_in(may: impl Fn(&Source) -> bool, texts: &[&str]) {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !may(source)) {
        for text in texts.iter().filter(|text| stands_in(&source.text, text)) {
            wrong.push(format!("src/{} has {text:?}", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn stands_in(text: &str, wanted: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(wanted).any(|(at, _)| {
        !text[..at].ends_with(is_word) && !text[at + wanted.len()..].starts_with(is_word)
            || !wanted.starts_with(is_word)
    })
}

#[test]
fn unsafe_code_and_system_calls_stand_in_sys() {
    only_in(
        |source| source.is_in("sys") || source.is_in("auto.rs") || source.is_in("role.rs"),
        &["unsafe", "libc", "nix", "signal_hook"],
    );
}

/// How many blocks, functions, implementations and attributes are unsafe in each file. One more is one to look at: it
/// wants a reason why a safe way won't do, and its number here.
const UNSAFE: [(&str, usize); 35] = [
    ("auto.rs", 1),
    ("role.rs", 1),
    ("sys/copies.rs", 6),
    ("sys/copying.rs", 4),
    ("sys/crash.rs", 11),
    ("sys/credentials.rs", 6),
    ("sys/disk.rs", 3),
    ("sys/folder.rs", 1),
    ("sys/fork.rs", 7),
    ("sys/handler.rs", 11),
    ("sys/hidden.rs", 4),
    ("sys/leisure.rs", 3),
    ("sys/listener.rs", 9),
    ("sys/machine.rs", 1),
    ("sys/message.rs", 10),
    ("sys/namespace.rs", 4),
    ("sys/passing.rs", 6),
    ("sys/peer.rs", 2),
    ("sys/pidfd.rs", 4),
    ("sys/process.rs", 8),
    ("sys/program.rs", 5),
    ("sys/ptrace.rs", 11),
    ("sys/signal.rs", 4),
    ("sys/snapshot/halt.rs", 3),
    ("sys/snapshot/look.rs", 6),
    ("sys/snapshot/mod.rs", 7),
    ("sys/snapshot/questions.rs", 8),
    ("sys/snapshot/twin.rs", 2),
    ("sys/sock_diag.rs", 4),
    ("sys/spawn.rs", 6),
    ("sys/spawn/child.rs", 13),
    ("sys/terminal.rs", 5),
    ("sys/wake.rs", 5),
    ("sys/xattr.rs", 1),
    ("sys/xsave.rs", 1),
];

#[test]
fn no_unsafe_code_comes_or_goes_unseen() {
    let mut found: Vec<(String, usize)> = sources()
        .iter()
        .map(|source| (source.path.display().to_string(), count_of(&source.text, "unsafe")))
        .filter(|(_, count)| *count > 0)
        .collect();
    found.sort();
    let known = UNSAFE.map(|(path, count)| (path.to_owned(), count));
    assert_eq!(found, known, "the table has to say so");
}

/// How often a word stands in a text.
fn count_of(text: &str, wanted: &str) -> usize {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    text.split(|character| !is_word(character)).filter(|word| *word == wanted).count()
}

#[test]
fn protobuf_stands_where_criu_is_spoken_to_and_its_images_are_read() {
    only_in(|source| source.is_in("criu") || source.is_in("image"), &["prost"]);
}

#[test]
fn the_store_s_file_names_stand_in_its_layout() {
    let names = [
        "manifest.json",
        "moment.json",
        "status.json",
        "owner.json",
        "worker.log",
        "failed.log",
        "runner.lock",
        "run.json",
        "seal.json",
        ".partial",
    ];
    let quoted = ["\"latest\"", "\"images\"", "\"link\""];
    only_in(|source| source.is_in("store/layout.rs"), &names);
    only_in(|source| source.is_in("store/layout.rs"), &quoted);
}

#[test]
fn files_are_named_for_what_they_do() {
    for source in sources() {
        let name = source.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let vague = ["util", "utils", "common", "helper", "helpers", "misc", "shared"];
        assert!(!vague.contains(&name.as_str()), "src/{}", source.path.display());
    }
}

#[test]
fn the_reader_of_the_source_finds_what_it_looks_for() {
    let source =
        |text: &str| Source { path: "store/draft.rs".into(), text: without_tests(&without_comments(text)) };
    let imports = |text: &str| source(text).imports();
    assert_eq!(imports("use crate::{criu::{self, Way}, store::draft, sys};"), ["criu", "store", "sys"]);
    assert_eq!(imports("fn f() { crate::agent::run() }"), ["agent"]);
    assert_eq!(
        imports("// crate::agent\n#[cfg(test)]\nmod tests {\n    use crate::agent;\n}\nuse crate::sys;"),
        ["sys"]
    );
    assert!(imports("use other_crate::agent; use $crate::agent;").is_empty());
    assert!(
        stands_in("libc::kill(1)", "libc")
            && !stands_in("mylibc", "libc")
            && stands_in("\"0001.partial\"", ".partial")
    );
}
