//! Makes text shorter. Whole bodies only: they are kept, and so are sent with a length and a validator like any file.

use super::accept::Coding;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use std::io::{self, Write};

/// What can be made on the fly. Zstd cannot: who takes it takes brotli, too, which is shorter.
pub(super) const fn can(coding: Coding) -> bool {
    match coding {
        Coding::Brotli | Coding::Gzip => true,
        Coding::Identity | Coding::Zstd => false,
    }
}

/// The bytes in that coding; none if they do not become shorter. Takes its time: for a reader's thread.
pub(super) fn compress(coding: Coding, bytes: &[u8]) -> Option<Bytes> {
    /// Of 11: near the best that can be had at the speed of gzip.
    const BROTLI_QUALITY: u32 = 5;
    const BROTLI_WINDOW_BITS: u32 = 22;
    let coded: io::Result<Vec<u8>> = match coding {
        Coding::Brotli => (|| {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, BROTLI_WINDOW_BITS);
            writer.write_all(bytes)?;
            Ok(writer.into_inner())
        })(),
        Coding::Gzip => (|| {
            let mut writer = GzEncoder::new(Vec::new(), Compression::default());
            writer.write_all(bytes)?;
            writer.finish()
        })(),
        Coding::Identity | Coding::Zstd => return None,
    };
    coded.ok().filter(|coded| coded.len() < bytes.len()).map(|mut coded| {
        coded.shrink_to_fit();
        coded.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_was_compressed_is_read_as_it_was() {
        let text = "a line of text that comes again and again\n".repeat(500);
        let coded = compress(Coding::Gzip, text.as_bytes()).unwrap();
        let mut read = String::new();
        flate2::read::GzDecoder::new(&*coded).read_to_string(&mut read).unwrap();
        assert!(read == text && coded.len() < text.len() / 10);
        let coded = compress(Coding::Brotli, text.as_bytes()).unwrap();
        let mut read = Vec::new();
        brotli::Decompressor::new(&*coded, 4096).read_to_end(&mut read).unwrap();
        assert!(read == text.as_bytes() && coded.len() < text.len() / 10);
    }

    #[test]
    fn what_becomes_no_shorter_is_left_as_it_is() {
        // Xorshift: nothing repeats.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[4]
        };
        let noise: Vec<u8> = (0..3000).map(|_| noise()).collect();
        assert_eq!(compress(Coding::Gzip, &noise), None);
        assert_eq!(compress(Coding::Brotli, &noise), None);
        assert_eq!(compress(Coding::Identity, b"aaaaaaaaaaaaaaaaaaaaaa"), None);
    }
}
