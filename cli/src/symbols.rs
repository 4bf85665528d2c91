//! Which function an address is in, by the symbols of the files that a program ran.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use object::read::{Object, ObjectSegment, ObjectSymbol, ReadCache};
use object::{SymbolKind, SymbolSection};
use selfdump::Manifest;
use selfdump::inspect::{Mapping, MappingKind, Memory};
use serde::Serialize;

/// Where an address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The address.
    pub address: u64,
    /// The file that is mapped there, or what else is: `[vdso]`, `[anonymous]`.
    pub file: Option<PathBuf>,
    /// The function, by the symbols of the file; none where they don't tell, or the file is another one now.
    pub function: Option<String>,
    /// How far behind the function's beginning, or else the file's, the address is.
    pub offset_bytes: Option<u64>,
}

/// Shows it as debuggers do: `read+0x12 (libc.so.6)`, `libc.so.6+0x98765`.
impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.as_deref().map(|file| match file.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => file.display().to_string(),
        });
        match (&self.function, file, self.offset_bytes) {
            (Some(function), Some(file), Some(offset)) => write!(f, "{function}+{offset:#x} ({file})"),
            (None, Some(file), Some(offset)) => write!(f, "{file}+{offset:#x}"),
            _ => write!(f, "{:#x}, where nothing is mapped", self.address),
        }
    }
}

/// The symbols of the files of a checkpoint, each read when it is first asked for.
pub struct Symbols {
    build_ids: HashMap<PathBuf, String>,
    tables: HashMap<PathBuf, Option<Table>>,
}

impl Symbols {
    /// Those of the files that a checkpoint's program ran.
    pub fn of(manifest: &Manifest) -> Symbols {
        let mapped = manifest.program.mapped.iter();
        let build_ids = mapped.filter_map(|file| Some((file.path.clone(), file.build_id.clone()?))).collect();
        Symbols { build_ids, tables: HashMap::new() }
    }

    /// Where an address is.
    pub fn locate(&mut self, memory: &Memory, address: u64) -> Location {
        let holds = |mapping: &&Mapping| (mapping.start..mapping.end).contains(&address);
        let Some(mapping) = memory.mappings.iter().find(holds) else {
            return Location { address, file: None, function: None, offset_bytes: None };
        };
        let Some(path) = mapping.path.clone() else {
            let name = if mapping.kind == MappingKind::Vdso { "[vdso]" } else { "[anonymous]" };
            let offset_bytes = Some(address - mapping.start);
            return Location { address, file: Some(name.into()), function: None, offset_bytes };
        };
        let in_file = address - mapping.start + mapping.offset_bytes.0;
        let function = self.table(&path).and_then(|table| table.function(in_file));
        let offset_bytes = Some(function.as_ref().map_or(in_file, |(_, offset)| *offset));
        Location { address, file: Some(path), function: function.map(|(name, _)| name), offset_bytes }
    }

    /// The symbols of a file, if it is the one that was run.
    fn table(&mut self, path: &Path) -> Option<&Table> {
        let build_id = self.build_ids.get(path)?;
        let read = || Table::read(path).filter(|table| table.build_id == *build_id);
        self.tables.entry(path.to_owned()).or_insert_with(read).as_ref()
    }
}

/// The functions of a file.
struct Table {
    build_id: String,
    /// Of each part that is loaded: its offset in the file, its size there, and its address.
    parts: Vec<(u64, u64, u64)>,
    /// By address, with their sizes.
    functions: Vec<(u64, u64, String)>,
}

impl Table {
    /// None where it can't be read, or is no ELF file with a build id.
    fn read(path: &Path) -> Option<Table> {
        let cache = ReadCache::new(File::open(path).ok()?);
        let file = object::File::parse(&cache).ok()?;
        let build_id = file.build_id().ok()??.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = file.segments().map(|part| {
            let (offset, size) = part.file_range();
            (offset, size, part.address())
        });
        let symbols = file.symbols().chain(file.dynamic_symbols());
        let defined = symbols.filter(|symbol| {
            symbol.kind() == SymbolKind::Text
                && matches!(symbol.section(), SymbolSection::Section(_))
                && symbol.size() > 0
        });
        let mut functions: Vec<(u64, u64, String)> = defined
            .filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?.to_owned())))
            .collect();
        // Of several names for one place, the shortest is the one without underscores.
        functions.sort_by(|one, other| (one.0, one.2.len(), &one.2).cmp(&(other.0, other.2.len(), &other.2)));
        functions.dedup_by_key(|function| function.0);
        Some(Table { build_id, parts: parts.collect(), functions })
    }

    /// The function that an offset in the file is in, and how far.
    fn function(&self, offset: u64) -> Option<(String, u64)> {
        let (begin, _, loaded) =
            self.parts.iter().find(|(begin, size, _)| (*begin..begin + size).contains(&offset))?;
        let address = offset - begin + loaded;
        let behind = self.functions.partition_point(|function| function.0 <= address);
        let (start, size, name) = self.functions.get(behind.checked_sub(1)?)?;
        let within = Some(address - start).filter(|within| within < size)?;
        Some((format!("{:#}", rustc_demangle::demangle(name)), within))
    }
}
