//! Bytes that look random and cost a debug build next to nothing: a block of them, over and over.

/// How long the block is: a prime, so that no buffer, whose size is none, makes one place look like another.
const BLOCK: usize = 1_000_003;

/// An endless stream of bytes, another one for each seed.
#[derive(Debug)]
pub struct Noise {
    block: Vec<u8>,
    at: usize,
}

impl Noise {
    /// From its beginning.
    pub fn new(seed: u64) -> Self {
        let mut state = seed | 1;
        let mut block = vec![0; BLOCK];
        for word in block.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
        }
        Self { block, at: 0 }
    }

    /// The next bytes, at least one and at most so many.
    pub fn next(&mut self, most: usize) -> &[u8] {
        let from = self.at % BLOCK;
        let piece = &self.block[from..][..most.min(BLOCK - from)];
        self.at += piece.len();
        piece
    }

    /// Whether the next bytes are these.
    pub fn goes_on_with(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.next(bytes.len());
            let (now, later) = bytes.split_at(expected.len());
            if now != expected {
                return false;
            }
            bytes = later;
        }
        true
    }

    /// The first so many bytes of the stream with this seed.
    pub fn first(seed: u64, length: usize) -> Vec<u8> {
        let mut noise = Self::new(seed);
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            bytes.extend_from_slice(noise.next(length - bytes.len()));
        }
        bytes
    }
}
