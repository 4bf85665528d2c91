//! Real programs, dumped and restored by the real CRIU.
//!
//! A checkpoint concerns a whole process, so each test runs its subject as a child process of its own (an
//! example from `tests/programs`), watches it from outside, and ends it by its process id when the test is
//! over, however that ends. Nothing is skipped: without a CRIU the tests fail, and say how to get one.

mod harness;

mod afterlife;
mod aftermath;
mod agreement;
mod c;
mod chain;
mod client;
mod commands;
mod copies;
mod cores;
mod crash;
mod crowd;
mod dice;
mod diff;
mod dist;
mod edges;
mod encrypted;
mod explained;
mod failures;
#[path = "../faults/mod.rs"]
mod faults;
mod files;
mod follow;
mod forensics;
mod forks;
mod guard;
mod guest;
mod handler;
mod hooks;
mod incremental;
mod insight;
mod lazy;
mod leaving;
mod linking;
mod lives;
mod needs;
mod outside;
mod pause;
mod pictures;
mod pidns;
mod places;
mod presence;
mod python;
mod redis;
mod rootless;
mod run;
mod seeing;
mod server;
mod service;
mod show;
mod snapshot;
mod staging;
mod trust;
mod units;
mod verifying;
