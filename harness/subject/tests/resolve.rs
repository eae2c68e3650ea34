//! Programs that are found, refused, downloaded and cached; the programs are small scripts.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use touchstone_stand_in::stand_in;
use touchstone_subject::{
    Cache, Catalog, Found, Program, Recipe, ResolveError, Resolved, Selector, obtain, resolve,
};

type Tried<T> = Result<T, Box<dyn std::error::Error>>;

struct Bench {
    folder: tempfile::TempDir,
    cache: Cache,
}

impl Bench {
    fn new(version_args: &str) -> Tried<Self> {
        let folder = tempfile::tempdir()?;
        let subject = folder.path().join("my-proxy");
        fs::create_dir(&subject)?;
        fs::write(
            subject.join("subject.yaml"),
            format!(
                "format: 1\nabout: A proxy for tests.\nbinary:\n  name: my-proxy\n{version_args}  \
                 sources: [{{ path: bin/my-proxy }}]\nlab:\n  args: []\n"
            ),
        )?;
        fs::create_dir(subject.join("bin"))?;
        let cache = Cache::at(folder.path().join("cache"));
        Ok(Self { folder, cache })
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("my-proxy/bin/my-proxy")
    }

    fn resolve(&self, given: Option<&Path>) -> Tried<Result<Resolved, ResolveError>> {
        let at = self.folder.path().join("my-proxy");
        let selector: Selector = at.display().to_string().parse()?;
        let selection = Catalog::bundled()?.select(&selector)?;
        Ok(resolve(&selection, given, &self.cache, &mut |_| {}))
    }

    /// The outcome for a program given by path, with the folder's name cut out.
    fn check(&self, given: &Path, want: &str) -> Tried<()> {
        let got = match self.resolve(Some(given))? {
            Ok(resolved) => resolved.version.unwrap_or_else(|| "no version".to_owned()),
            Err(err) => err.to_string(),
        };
        let got = got.replace(&given.display().to_string(), "PATH");
        assert_eq!(got, want);
        Ok(())
    }
}

const ASKED: &str = "  version-args: [--version]\n";

#[test]
fn a_program_beside_its_file_is_found() -> Tried<()> {
    let bench = Bench::new("")?;
    stand_in(&bench.program(), "#!/bin/sh\n", "755")?;
    let resolved = bench.resolve(None)??;
    assert_eq!(resolved.found, Found::Path);
    assert_eq!(resolved.version, None);
    assert_eq!(resolved.sha256, "a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf");
    Ok(())
}

#[test]
fn a_program_says_its_version() -> Tried<()> {
    let bench = Bench::new(ASKED)?;
    stand_in(&bench.program(), "#!/bin/sh\necho my-proxy 0.3.1\n", "755")?;
    let resolved = bench.resolve(None)??;
    assert_eq!(resolved.version.as_deref(), Some("my-proxy 0.3.1"));
    assert_eq!(resolved.release.map(|release| release.to_string()).as_deref(), Some("v0.3.1"));
    Ok(())
}

#[test]
fn programs_that_cannot_be_used_are_named() -> Tried<()> {
    let bench = Bench::new(ASKED)?;
    let at = |name: &str| bench.folder.path().join(name);
    let given = "failed to use the given binary:";
    bench.check(&at("absent"), &format!("{given} PATH does not exist"))?;
    bench.check(bench.folder.path(), &format!("{given} PATH is a directory"))?;
    stand_in(&at("plain"), "#!/bin/sh\n", "644")?;
    bench.check(&at("plain"), &format!("{given} PATH is not executable"))?;
    stand_in(&at("text"), "hello", "755")?;
    bench.check(
        &at("text"),
        &format!("{given} PATH is neither an ELF program nor a script that begins with #!"),
    )?;
    stand_in(&at("exits"), "#!/bin/sh\necho unknown flag >&2\nexit 3\n", "755")?;
    bench.check(
        &at("exits"),
        &format!("{given} PATH --version exits at once with status 3: unknown flag"),
    )?;
    stand_in(&at("silent"), "#!/bin/sh\n", "755")?;
    bench.check(&at("silent"), &format!("{given} PATH --version prints no version"))?;
    stand_in(&at("lost"), "#!/no/such/shell\n", "755")?;
    bench.check(
        &at("lost"),
        &format!("{given} failed to start PATH: No such file or directory (os error 2)"),
    )?;
    let other = "\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16";
    stand_in(&at("other"), other, "755")?;
    let here = std::env::consts::ARCH;
    bench.check(
        &at("other"),
        &format!("{given} PATH is a program for s390x, this machine is {here}"),
    )
}

#[test]
fn when_all_ways_are_closed_each_is_listed() -> Tried<()> {
    let bench = Bench::new("")?;
    let message = bench.resolve(None)?.map_err(|err| err.to_string());
    let path = fs::canonicalize(bench.folder.path())?.join("my-proxy/bin/my-proxy");
    assert_eq!(
        message,
        Err(format!(
            "found no my-proxy; every way is closed:\n\
             - --binary PATH: not given\n  remedy: give the path of a binary\n\
             - path in the subject's file: {} does not exist\n  \
             remedy: put the program there, or correct the path",
            path.display()
        ))
    );
    Ok(())
}

/// Answers `count` requests from a table of paths and contents, then ends.
fn serve(
    listener: TcpListener,
    count: usize,
    pages: Vec<(&'static str, String)>,
) -> std::io::Result<()> {
    for _ in 0..count {
        let (mut stream, _) = listener.accept()?;
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            request.extend(byte);
        }
        let request = String::from_utf8_lossy(&request).into_owned();
        let path = request.split(' ').nth(1).unwrap_or_default();
        let page = pages.iter().find(|(name, _)| *name == path);
        let (status, body) = page.map_or(("404 Not Found", ""), |(_, body)| ("200 OK", body));
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
    }
    Ok(())
}

const DOWNLOADED: &str = "#!/bin/sh\necho tool v1.2.3\n";
const DOWNLOADED_SHA256: &str = "376d61129f6ab72495b5251f097b7cd3bf34a7cb180808a6ba42310867bf743c";

fn fetch(
    cache: &Cache,
    pages: Vec<(&'static str, String)>,
    requests: usize,
) -> Tried<(Result<Resolved, String>, Vec<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let base = format!("http://{}", listener.local_addr()?);
    let program = Program {
        name: "tool".to_owned(),
        release: "v1.2.3".parse()?,
        version_args: Some(vec!["--version".to_owned()]),
        recipes: vec![Recipe::Download {
            url: format!("{base}/tool"),
            sha256: format!("{base}/tool.sha256"),
        }],
    };
    let mut lines = Vec::new();
    let outcome = std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(listener, requests, pages));
        let outcome = obtain(&program, cache, &mut |line| lines.push(line.replace(&base, "URL")));
        (outcome, server.join())
    });
    let (outcome, server) = outcome;
    assert!(server.is_ok_and(|served| served.is_ok()));
    Ok((outcome.map_err(|err| err.to_string().replace(&base, "URL")), lines))
}

#[test]
fn a_download_is_checked_and_asked_for_its_version() -> Tried<()> {
    let folder = tempfile::tempdir()?;
    let pages = vec![
        ("/tool", DOWNLOADED.to_owned()),
        ("/tool.sha256", format!("{DOWNLOADED_SHA256}  tool\n")),
    ];
    let (outcome, lines) = fetch(&Cache::at(folder.path()), pages, 2)?;
    let resolved = outcome?;
    assert_eq!(resolved.sha256, DOWNLOADED_SHA256);
    assert_eq!(resolved.version.as_deref(), Some("tool v1.2.3"));
    assert!(matches!(resolved.found, Found::Downloaded { .. }));
    assert_eq!(
        lines,
        [
            "looking for tool v1.2.3 in the cache…",
            "closed: it is not there",
            "downloading URL/tool…"
        ]
    );
    Ok(())
}

#[test]
fn bad_downloads_are_refused_and_leave_nothing() -> Tried<()> {
    let zeros = "0".repeat(64);
    let cases = [
        (
            vec![("/tool", DOWNLOADED.to_owned()), ("/tool.sha256", zeros.clone())],
            2,
            format!(
                "failed to check URL/tool: its SHA-256 is {DOWNLOADED_SHA256}, \
                 published is {zeros}\n  remedy: try again; if it stays, do not trust that server"
            ),
        ),
        (
            vec![("/tool.sha256", "not found".to_owned())],
            1,
            "failed to check the download: URL/tool.sha256 holds no SHA-256\n  \
             remedy: check the `sha256` of this source"
                .to_owned(),
        ),
        (
            vec![],
            1,
            "failed to download URL/tool.sha256: the server answers 404 Not Found\n  \
             remedy: check that this release exists for this machine"
                .to_owned(),
        ),
    ];
    for (pages, requests, want) in cases {
        let folder = tempfile::tempdir()?;
        let (outcome, _) = fetch(&Cache::at(folder.path()), pages, requests)?;
        let want = format!(
            "found no tool v1.2.3; every way is closed:\n- cache: it is not there\n  \
             remedy: it is filled by the ways below\n- download: {want}"
        );
        assert_eq!(outcome.map(|_| ()), Err(want));
        let left: Vec<_> = fs::read_dir(folder.path().join("programs"))?
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
            .filter(|name| !name.to_string_lossy().ends_with(".lock"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    Ok(())
}
