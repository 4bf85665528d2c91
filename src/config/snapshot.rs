//! Whether the program stands still for as long as its memory is copied.

/// Whether the program stands still for as long as its memory is copied.
///
/// With `Auto` and `Cow` nothing is written ahead ([`max_pause`](crate::Config::max_pause)) and nothing goes by way of memory
/// ([`staging`](crate::Config::staging)), also where the program stands still for a checkpoint after all. Forensic
/// checkpoints are made as by `Freeze`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Snapshot {
    /// The program stands still while CRIU copies its memory.
    #[default]
    Freeze,
    /// Where the program allows it, it stands still only while its threads are halted and a copy-on-write copy of it is
    /// made, which CRIU dumps while the program runs on; else as `Freeze`, and the report says why
    /// ([`Checkpoint::technique`](crate::Checkpoint::technique)).
    Auto,
    /// The same, but a program of which no such copy can be made isn't checkpointed, and the error names what is in the
    /// way.
    Cow,
}
