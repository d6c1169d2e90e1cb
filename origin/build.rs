//! Migrations are embedded: a new file must rebuild the package.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
