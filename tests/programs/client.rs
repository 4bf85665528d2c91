//! Asks CRIU one thing after the other, each over a connection of its own, and prints the answers.
//! `client CRIU FOLDER`

use std::path::Path;
use std::time::Duration;

use selfdump::Error;
use selfdump::criu::{Connection, DumpOptions, needs};

const TIMEOUT: Duration = Duration::from_secs(60);

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let (criu, folder) = (arguments.next().expect("CRIU"), arguments.next().expect("FOLDER"));
    let (criu, folder) = (Path::new(&criu), Path::new(&folder));
    let connect = || Connection::worker(criu, &folder.join("worker.log"), TIMEOUT);
    let link = |name: &str| {
        let images = folder.join(name);
        std::fs::create_dir(&images).expect("a folder for images");
        let link = images.with_extension("link");
        std::os::unix::fs::symlink(&images, &link).expect("a link to it");
        link
    };

    tell("version", connect().and_then(|worker| worker.version()).map(|version| version.to_string()));
    tell("check", connect().and_then(|worker| worker.check(&link("check"))).map(|()| "good".to_owned()));
    let features = connect().and_then(|worker| worker.features());
    let tracking = features.as_ref().is_ok_and(|features| features.memory_tracking);
    tell("features", features.map(|features| format!("{features:?}")));
    println!("tracking {tracking}");

    let needs = needs().expect("our own needs");
    let mut options = DumpOptions::new(link("pre-dump"), needs.clone());
    options.track_memory = true;
    tell("pre-dump", connect().and_then(|worker| worker.pre_dump(&options)).map(|()| "done".to_owned()));
    options.images = link("single");
    let single = connect().and_then(|worker| worker.single_pre_dump(&options));
    tell("single-pre-dump", single.map(|()| "done".to_owned()));
    // Two requests over one connection.
    let both = connect().and_then(|worker| {
        worker.version()?;
        worker.dump(&DumpOptions::new(link("dump"), needs.clone()))
    });
    tell("dump", both.map(|dumped| format!("{dumped:?}")));
}

fn tell(what: &str, answer: Result<String, Error>) {
    match answer {
        Ok(answer) => println!("{what}: {answer}"),
        Err(error) => {
            println!("{what}: error {} {}", error.kind().name(), format!("{error:?}").replace('\n', " | "))
        }
    }
}
