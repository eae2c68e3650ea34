//! Looks at a program before anything relies on it: is it one, is it for this machine, does it run.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use sha2::{Digest, Sha256};

use crate::process::{self, RunError};
use crate::release::Release;

/// How long a program may take to print its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// A program that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// Nothing is there.
    #[error("{path} does not exist")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a directory.
    #[error("{path} is a directory")]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// It is a device, a socket or the like.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// It lacks permission to be executed.
    #[error("{path} is not executable")]
    NotExecutable {
        /// The path.
        path: PathBuf,
    },
    /// It is neither an ELF program nor a script.
    #[error("{path} is neither an ELF program nor a script that begins with #!")]
    NotProgram {
        /// The path.
        path: PathBuf,
    },
    /// It was made for another machine.
    #[error("{path} is a program for {machine}, this machine is {here}")]
    OtherMachine {
        /// The path.
        path: PathBuf,
        /// The machine it is for.
        machine: String,
        /// This machine.
        here: &'static str,
    },
    /// It cannot be started.
    #[error("failed to start {path}: {source}")]
    Start {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It ends without printing a version.
    #[error("{command} exits at once with {status}{}", tail(.last))]
    Exits {
        /// The command.
        command: String,
        /// `status 1`, or the signal.
        status: String,
        /// Its last lines.
        last: String,
    },
    /// It does not end.
    #[error("{command} hangs: no end within {limit:?}")]
    Hangs {
        /// The command.
        command: String,
        /// The limit.
        limit: Duration,
    },
    /// It prints nothing.
    #[error("{command} prints no version")]
    Silent {
        /// The command.
        command: String,
    },
    /// It is another release than the one asked for.
    #[error("{path} says that it is {says}, but {asked} was asked for")]
    OtherRelease {
        /// The path.
        path: PathBuf,
        /// What it says.
        says: Release,
        /// What was asked for.
        asked: Release,
    },
}

fn tail(last: &str) -> String {
    if last.is_empty() { ", having printed nothing".to_owned() } else { format!(": {last}") }
}

/// What a look at a program showed.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) sha256: String,
    pub(crate) version: Option<String>,
    pub(crate) release: Option<Release>,
}

/// Looks at the program at `path`, and asks it for its version when `version_args` are given.
/// It is read as a whole, unless its digest is known from a moment ago.
///
/// Blocks for at most the time of reading the file and [`VERSION_LIMIT`].
pub(crate) fn examine(
    path: &Path,
    version_args: Option<&[String]>,
    asked: Option<&Release>,
    known: Option<String>,
) -> Result<Examined, BinaryError> {
    is_program(path)?;
    let version = version_args.map(|args| version(path, args, VERSION_LIMIT)).transpose()?;
    let release = version.as_deref().and_then(Release::within);
    if let (Some(says), Some(asked)) = (&release, asked)
        && says != asked
    {
        return Err(BinaryError::OtherRelease {
            path: path.to_owned(),
            says: says.clone(),
            asked: asked.clone(),
        });
    }
    let read = |source| BinaryError::Read { path: path.to_owned(), source };
    let sha256 = known.map_or_else(|| digest(path).map_err(read), Ok)?;
    Ok(Examined { sha256, version, release })
}

fn is_program(path: &Path) -> Result<(), BinaryError> {
    let path = || path.to_owned();
    let facts = fs::metadata(path()).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            BinaryError::Missing { path: path() }
        } else {
            BinaryError::Read { path: path(), source }
        }
    })?;
    if facts.is_dir() {
        return Err(BinaryError::Directory { path: path() });
    }
    if !facts.is_file() {
        return Err(BinaryError::NotRegular { path: path() });
    }
    if facts.permissions().mode() & 0o111 == 0 {
        return Err(BinaryError::NotExecutable { path: path() });
    }
    let mut head = Vec::new();
    File::open(path())
        .and_then(|file| file.take(20).read_to_end(&mut head))
        .map_err(|source| BinaryError::Read { path: path(), source })?;
    match machine(&head) {
        Head::Script => Ok(()),
        Head::Elf { machine, little } => {
            let here = std::env::consts::ARCH;
            let known = MACHINES.iter().find(|known| known.1 == machine && known.2 == little);
            match known {
                Some((name, _, _)) if *name == here => Ok(()),
                Some((name, _, _)) => {
                    Err(BinaryError::OtherMachine { path: path(), machine: (*name).into(), here })
                }
                None => {
                    let machine = format!("the ELF machine {machine}");
                    Err(BinaryError::OtherMachine { path: path(), machine, here })
                }
            }
        }
        Head::Other => Err(BinaryError::NotProgram { path: path() }),
    }
}

/// Name as in `std::env::consts::ARCH`, number in the ELF header, little-endian.
const MACHINES: &[(&str, u16, bool)] = &[
    ("x86_64", 62, true),
    ("aarch64", 183, true),
    ("x86", 3, true),
    ("arm", 40, true),
    ("riscv64", 243, true),
    ("loongarch64", 258, true),
    ("powerpc64", 21, true),
    ("s390x", 22, false),
];

/// The loader that a program asks for, such as `/lib64/ld-linux-x86-64.so.2`, or a script's line;
/// none where it is static, so that it runs where there is no other file.
///
/// # Errors
/// When it cannot be read.
pub fn loader(path: &Path) -> io::Result<Option<String>> {
    let bytes = fs::read(path)?;
    if let Some(line) = bytes.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        return Ok(Some(String::from_utf8_lossy(line).trim().to_owned()));
    }
    Ok(interpreter(&bytes))
}

/// What an ELF program's header of kind PT_INTERP names (elf(5)).
fn interpreter(bytes: &[u8]) -> Option<String> {
    const PT_INTERP: u64 = 3;
    let wide = *bytes.get(4)? == 2;
    let little = *bytes.get(5)? == 1;
    let number = |at: usize, size: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if little { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) })
    };
    let (table, size, count) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    (0..count).find_map(|index| {
        let at = usize::try_from(table.checked_add(index * size)?).ok()?;
        if number(at, 4)? != PT_INTERP {
            return None;
        }
        let (from, long) = if wide {
            (number(at + 8, 8)?, number(at + 32, 8)?)
        } else {
            (number(at + 4, 4)?, number(at + 16, 4)?)
        };
        let from = usize::try_from(from).ok()?;
        let text = bytes.get(from..from.checked_add(usize::try_from(long).ok()?)?)?;
        let text = String::from_utf8_lossy(text);
        Some(text.trim_end_matches('\0').to_owned())
    })
}

enum Head {
    Script,
    Elf { machine: u16, little: bool },
    Other,
}

fn machine(head: &[u8]) -> Head {
    if head.starts_with(b"#!") {
        return Head::Script;
    }
    // Byte 5 tells the order of the bytes, 18 and 19 the machine.
    match *head {
        [0x7f, b'E', b'L', b'F', _, 1, .., first, second] if head.len() == 20 => {
            Head::Elf { machine: u16::from_le_bytes([first, second]), little: true }
        }
        [0x7f, b'E', b'L', b'F', _, 2, .., first, second] if head.len() == 20 => {
            Head::Elf { machine: u16::from_be_bytes([first, second]), little: false }
        }
        _ => Head::Other,
    }
}

fn version(path: &Path, args: &[String], limit: Duration) -> Result<String, BinaryError> {
    let shown = std::iter::once(path.display().to_string())
        .chain(args.iter().cloned())
        .collect::<Vec<_>>()
        .join(" ");
    let mut command = Command::new(path);
    command.args(args).stdin(std::process::Stdio::null());
    let output = match process::run(command, limit) {
        Ok(output) => output,
        Err(RunError::Start(source)) => {
            return Err(BinaryError::Start { path: path.to_owned(), source });
        }
        Err(RunError::Limit(limit)) => {
            return Err(BinaryError::Hangs { command: shown, limit });
        }
    };
    let printed = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    if !output.status.success() {
        let wrote = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        let status = output
            .status
            .code()
            .map_or_else(|| output.status.to_string(), |code| format!("status {code}"));
        let last = process::last_lines(wrote, 3);
        return Err(BinaryError::Exits { command: shown, status, last });
    }
    let text = String::from_utf8_lossy(printed).trim().to_owned();
    if text.is_empty() { Err(BinaryError::Silent { command: shown }) } else { Ok(text) }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 18];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(piece.get(..count).unwrap_or_default()),
        }
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_stopped() {
        let args = ["600".to_owned()];
        let outcome = version(Path::new("/bin/sleep"), &args, Duration::from_millis(10));
        let message = outcome.map_err(|err| err.to_string());
        assert_eq!(message, Err("/bin/sleep 600 hangs: no end within 10ms".to_owned()));
    }

    #[test]
    fn a_program_that_needs_others_names_its_loader() {
        let script = tempfile::NamedTempFile::new().expect("a file");
        fs::write(script.path(), "#!/bin/sh -e\ntrue\n").expect("writable");
        assert_eq!(loader(script.path()).expect("readable").as_deref(), Some("/bin/sh -e"));
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        assert_eq!(interpreter(&elf), None, "no header of that kind");
        elf[64] = 3;
        (elf[64 + 8], elf[64 + 32]) = (120, 7);
        elf.extend(b"/ld.so\0");
        assert_eq!(interpreter(&elf).as_deref(), Some("/ld.so"));
        elf.truncate(122);
        assert_eq!(interpreter(&elf), None, "cut off");
    }

    #[test]
    fn the_machine_of_a_program_is_in_its_head() {
        let elf = |order: u8, machine: [u8; 2]| {
            let mut head = vec![0x7f, b'E', b'L', b'F', 2, order];
            head.resize(18, 0);
            head.extend(machine);
            machine_name(&head)
        };
        assert_eq!(elf(1, [62, 0]), "62 little");
        assert_eq!(elf(2, [0, 22]), "22 big");
        assert_eq!(elf(3, [62, 0]), "other");
        assert_eq!(machine_name(b"\x7fELF"), "other");
        assert_eq!(machine_name(b"#!/bin/sh"), "script");
    }

    fn machine_name(head: &[u8]) -> String {
        match machine(head) {
            Head::Script => "script".to_owned(),
            Head::Elf { machine, little: true } => format!("{machine} little"),
            Head::Elf { machine, little: false } => format!("{machine} big"),
            Head::Other => "other".to_owned(),
        }
    }
}
