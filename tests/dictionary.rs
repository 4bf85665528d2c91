//! The dictionary of CRIU's log lines, held to logs that were met: `fixtures/criu-logs.txt` has a section for each
//! rule, of which the whole is explained by that rule and no other.

use std::collections::BTreeSet;

use selfdump::criu::{DICTIONARY, Rule, explain};

const LOGS: &str = include_str!("fixtures/criu-logs.txt");

/// What every run logs where CAP_SYS_RESOURCE is missing, whatever comes of it.
const HARMLESS: &str =
    "Error (criu/rlimit.c:31): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted";

/// A section: the id of a rule, where the lines are from, and the lines.
struct Section {
    id: &'static str,
    source: &'static str,
    lines: Vec<&'static str>,
}

impl Section {
    /// Whether the failure was provoked, with the version that stands there.
    fn was_provoked(&self) -> bool {
        self.source.split(", ").all(|version| ["4.2.1", "4.1.1", "3.17.1"].contains(&version))
    }

    fn log(&self) -> String {
        let timed = |line: &str| format!("(00.000123) {line}\n");
        std::iter::once(&HARMLESS).chain(&self.lines).map(|line| timed(line)).collect()
    }
}

fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in LOGS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|heading| heading.split_once("] ")) {
            Some((id, source)) => sections.push(Section { id, source, lines: Vec::new() }),
            None => sections.last_mut().expect("a heading before the first line").lines.push(line),
        }
    }
    sections
}

fn rules() -> impl Iterator<Item = &'static Rule> {
    DICTIONARY.iter().flat_map(|chapter| chapter.rules)
}

#[test]
fn every_log_is_explained_by_its_rule() {
    for section in sections() {
        let explanation = explain(&section.log());
        let rule = explanation.rule.unwrap_or_else(|| panic!("nothing explains [{}]", section.id));
        assert_eq!(rule.id, section.id, "{}", section.log());
        let cause = explanation.cause.expect("the line that tells it");
        assert!(rule.line.iter().all(|part| cause.text.contains(part)), "{cause:?}");
    }
}

#[test]
fn every_rule_has_a_log_and_an_id_of_its_own() {
    let logs: Vec<&str> = sections().iter().map(|section| section.id).collect();
    let ids: Vec<&str> = rules().map(|rule| rule.id).collect();
    assert_eq!(logs, ids, "the sections stand in the order of the rules");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id stands twice");
}

#[test]
fn most_rules_were_provoked_and_the_others_name_their_source() {
    let sections = sections();
    let provoked = sections.iter().filter(|section| section.was_provoked()).count();
    assert!(provoked >= 110, "{provoked} were provoked");
    for section in sections.iter().filter(|section| !section.was_provoked()) {
        let is_named = section.source.ends_with(".c") || section.source.starts_with("issue ");
        assert!(is_named, "[{}] is from {:?}", section.id, section.source);
    }
}

#[test]
fn every_rule_says_what_happened_and_what_to_do() {
    for rule in rules() {
        assert!(!rule.line.is_empty() && rule.line.iter().all(|part| part.len() > 2), "{rule:?}");
        for text in [rule.cause, rule.remedy] {
            assert!(text.len() > 15 && !text.ends_with('.') && text.trim() == text, "{rule:?}");
        }
    }
}
