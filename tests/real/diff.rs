//! `selfdump diff`: exactly what a program has changed.

use serde_json::{Value, json};

use crate::harness::{Lab, Subject, USR2};
use crate::show::{fails, json, said, shown, with};

const PAGE: u64 = 4096;

/// `shown`, with a checkpoint before and one after it has changed.
pub fn changed(lab: &Lab) -> Subject {
    let (program, _) = shown(lab);
    program.signal(libc::SIGUSR1);
    program.wait_for("changed");
    program.signal(USR2);
    lab.wait_for_checkpoint(2);
    program
}

fn ids(lab: &Lab) -> Vec<String> {
    let all = lab.checkpoints();
    all.iter().map(|path| path.strip_prefix(lab.store()).unwrap().to_str().unwrap().to_owned()).collect()
}

/// Pages that changed, came and went, and the bytes of those that changed.
fn counts(mapping: &Value) -> [u64; 4] {
    ["changed_pages", "new_pages", "gone_pages", "changed_bytes"]
        .map(|field| mapping[field].as_u64().unwrap())
}

#[test]
fn exactly_the_pages_that_were_written_to_are_different_and_what_came_went_and_moved_is_told() {
    let lab = Lab::new();
    let program = changed(&lab);
    let said = said(&program);
    let [first, second]: [String; 2] = ids(&lab).try_into().unwrap();
    let difference = json(&lab, &["diff", &first, &second, "--json"]);
    assert_eq!(
        (&difference["earlier"], &difference["later"]),
        (&first.as_str().into(), &second.as_str().into())
    );
    let process = with(&difference["processes"], "pid", program.pid());
    assert_eq!(process["change"], "stayed");

    let pages = with(&process["memory"], "start", said["pages"]);
    assert_eq!((counts(pages), &pages["same_pages"]), ([3, 0, 1, 1 + 100 + PAGE], &60.into()));
    let at = |page: u64| said["pages"] + page * PAGE;
    let expected = json!([{"start": at(3), "end": at(4)}, {"start": at(40), "end": at(42)}]);
    assert_eq!((&pages["changed"], &pages["change"]), (&expected, &"stayed".into()));
    let shared = with(&process["memory"], "start", said["shared"]);
    // CRIU carries shared memory without a file as a memfd.
    assert_eq!((counts(shared), &shared["kind"]), ([1, 0, 0, 1], &"mem-fd".into()));
    let page = said["shared"] + 2 * PAGE;
    assert_eq!(shared["changed"], json!([{"start": page, "end": page + PAGE}]));
    let leaving = with(&process["memory"], "start", said["leaving"]);
    assert_eq!((counts(leaving), &leaving["change"]), ([0, 0, 2, 0], &"went".into()));
    let stacks = process["memory"].as_array().unwrap().iter().filter(|mapping| mapping["change"] == "came");
    assert!(stacks.count() > 0, "the newcomer's stack has come");

    let newcomer = with(&process["threads"], "name", "newcomer");
    assert_eq!((&newcomer["change"], &newcomer["before"]), (&"came".into(), &Value::Null));
    assert!(process["threads"].as_array().unwrap().iter().all(|thread| thread["name"] != "standing"));

    let file = with(&process["descriptors"], "fd", said["file"]);
    assert_eq!(file["change"], "renamed");
    assert_eq!(file["after"]["path"], lab.path("file.old").to_str().unwrap());
    assert_eq!(
        (&file["before"]["position_bytes"], &file["after"]["position_bytes"]),
        (&12.into(), &21.into())
    );
    let opened = with(&process["descriptors"], "fd", said["opened"]);
    assert_eq!((&opened["change"], &opened["after"]["path"]), (&"replaced".into(), &"/dev/zero".into()));
    let fds: Vec<&Value> = process["descriptors"].as_array().unwrap().iter().map(|one| &one["fd"]).collect();
    assert!(!fds.contains(&&said["listener"].into()), "it is as it was");
}

#[test]
fn a_checkpoint_alone_is_compared_with_the_one_before_and_with_itself_nothing_is_different() {
    let lab = Lab::new();
    drop(changed(&lab));
    let [first, second]: [String; 2] = ids(&lab).try_into().unwrap();
    let before = json(&lab, &["diff", "shown", "--json"]);
    assert_eq!(before, json(&lab, &["diff", &first, &second, "--json"]));
    let backwards = json(&lab, &["diff", &second, &first, "--json"]);
    let [there, back] = [&before, &backwards].map(|difference| {
        let memory = difference["processes"][0]["memory"].as_array().unwrap().iter().map(counts);
        memory.fold([0; 4], |sum, one| [0, 1, 2, 3].map(|field| sum[field] + one[field]))
    });
    assert_eq!(there, [back[0], back[2], back[1], back[3]]);

    let itself = json(&lab, &["diff", &second, &second, "--json"]);
    for part in ["memory", "threads", "descriptors"] {
        assert_eq!(itself["processes"][0][part], json!([]), "{part}");
    }
    let table = String::from_utf8(lab.run(["diff", "shown"]).stdout).unwrap();
    for word in ["renamed", "clock_nanosleep+", "newcomer", "came", "4197"] {
        assert!(table.contains(word), "{word:?} is not in {table}");
    }
    fails(&lab, &["diff", &first], &["no checkpoint before it", "name another one"]);
    fails(&lab, &["diff", &first, "nobody"], &["no checkpoints of nobody"]);
    let image = lab.checkpoints()[0].join("images/pages-1.img");
    std::fs::File::options().write(true).open(image).unwrap().set_len(PAGE).unwrap();
    fails(&lab, &["diff", "shown"], &["can't be read", "selfdump verify"]);
}
