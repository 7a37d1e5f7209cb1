//! Writes the samples of all decoders to `fuzz/corpus`, for the fuzzer to begin with.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, samples) in hawser_fuzz::samples() {
        let folder = corpus.join(name);
        fs::create_dir_all(&folder)?;
        for (number, sample) in samples.iter().enumerate() {
            fs::write(folder.join(format!("sample-{number}")), sample)?;
        }
        println!("{name}: {} samples", samples.len());
    }
    Ok(())
}
