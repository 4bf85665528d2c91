//! Requests, answers and images between structs and bytes: `cd bench; cargo bench -p codec`.

use std::hint::black_box;

use codec::{images, rpc};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;

/// A request for a dump with the options that selfdump sets for a plain program.
fn dump_request() -> rpc::Request {
    rpc::Request {
        kind: rpc::RequestKind::Dump as i32,
        opts: Some(rpc::Options {
            images_dir_fd: -1,
            images_dir: Some(b"/var/lib/selfdump/counter/4711-8839201/000007.partial/link".to_vec()),
            leave_running: Some(true),
            shell_job: Some(true),
            file_locks: Some(false),
            tcp_established: Some(false),
            ext_unix_sk: Some(false),
            track_mem: Some(false),
            log_level: Some(2),
            log_file: Some(b"dump.log".to_vec()),
            manage_cgroups_mode: Some(rpc::CgroupMode::Ignore as i32),
            ..rpc::Options::default()
        }),
        ..rpc::Request::default()
    }
}

/// What CRIU answers after a dump that went well: the harmless line about a limit is there all the same.
fn dump_answer() -> Vec<u8> {
    let line =
        "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted";
    rpc::Response {
        kind: rpc::RequestKind::Dump as i32,
        success: true,
        dump: Some(rpc::DumpResponse { restored: Some(false) }),
        cr_errmsg: Some(line.as_bytes().to_vec()),
        ..rpc::Response::default()
    }
    .encode_to_vec()
}

fn memory(mappings: u64) -> Vec<u8> {
    let mapping = |number: u64| images::Mapping {
        start: 0x7f00_0000_0000 + number * 0x4000,
        end: 0x7f00_0000_2000 + number * 0x4000,
        prot: 3,
        flags: 0x22,
        status: 0x201,
        fd: -1,
        ..Default::default()
    };
    images::Memory { vmas: (0..mappings).map(mapping).collect(), ..Default::default() }.encode_to_vec()
}

fn requests(criterion: &mut Criterion) {
    let request = dump_request();
    criterion.bench_function("codec/encode a dump request", |bencher| {
        bencher.iter(|| black_box(&request).encode_to_vec());
    });
    let answer = dump_answer();
    criterion.bench_function("codec/decode the answer to a dump", |bencher| {
        bencher.iter(|| rpc::Response::decode(black_box(answer.as_slice())).expect("an answer"));
    });
}

fn memory_images(criterion: &mut Criterion) {
    const MAPPINGS: u64 = 10_000;
    let bytes = memory(MAPPINGS);
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(MAPPINGS));
    group.bench_function("decode the memory image of 10,000 mappings", |bencher| {
        bencher.iter(|| images::Memory::decode(black_box(bytes.as_slice())).expect("an image").vmas.len());
    });
}

criterion_group!(benches, requests, memory_images);
criterion_main!(benches);
