//! Gives the library its SONAME, which a program that links it looks for: the number changes when such programs have
//! to be built anew.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libselfdump.so.0");
}
