//! Compiles the contracts in `proto/` without protoc: protox parses, tonic generates, and the descriptor set feeds reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PACKAGES: [&str; 5] = ["common", "submission", "dispatcher", "worker", "monitor"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    for package in PACKAGES {
        for entry in fs::read_dir(root.join("oxcart").join(package).join("v1"))? {
            files.push(entry?.path());
        }
    }
    files.sort();
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let descriptors = compiler.file_descriptor_set();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("oxcart.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
