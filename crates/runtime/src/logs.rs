//! Reads a container's log as its shim writes it: Docker's json-file, over rotated files, and on as it grows. Growth is
//! told by the kernel; nothing is polled.

use crate::{Log, Stream};
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Up to this time; following ends there.
    pub until: Option<Timestamp>,
    /// The last so many lines, counted before anything is left out.
    pub tail: Option<usize>,
    /// Go on as it grows.
    pub follow: bool,
}

impl Default for Query {
    fn default() -> Self {
        Query { stdout: true, stderr: true, since: None, until: None, tail: None, follow: false }
    }
}

/// One line, or a piece of a long one: then without a newline at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// By which it came.
    pub stream: Stream,
    /// When its shim read its end.
    pub time: Timestamp,
    /// What was written; what is no UTF-8 is replaced.
    pub text: String,
}

#[derive(Deserialize)]
struct Written {
    log: String,
    stream: String,
    time: Timestamp,
}

/// Read a log. Lines come by the channel until there are no more: following ends when `ended` does, after the last line
/// is read. Dropping the receiver ends it too.
///
/// # Errors
/// The kernel has no more inotify instances. A log that does not exist is an empty one.
pub fn read(
    log: &Log,
    query: Query,
    ended: impl Future<Output = ()> + Send + 'static,
) -> io::Result<mpsc::Receiver<io::Result<Line>>> {
    let (sender, receiver) = mpsc::channel(256);
    // Watched before it is read, so that nothing is missed in between.
    let directory = log.path.parent().filter(|_| query.follow);
    let watch = directory.map(kernel::directory::watch).transpose()?;
    let files = Files { path: log.path.clone(), most: log.max_files.max(1) };
    tokio::spawn(async move {
        let history = {
            let (files, query, sender) = (files.clone(), query.clone(), sender.clone());
            tokio::task::spawn_blocking(move || history(&files, &query, &sender)).await
        };
        match history {
            Ok(Ok(Some(reader))) => {
                if let Some(watch) = watch {
                    follow(&files, reader, &query, &watch, &sender, ended).await;
                }
            }
            Ok(Err(error)) => {
                let _ = sender.send(Err(error)).await;
            }
            Ok(Ok(None)) | Err(_) => {}
        }
    });
    Ok(receiver)
}

/// A log's files, by age.
#[derive(Clone)]
struct Files {
    path: PathBuf,
    most: u32,
}

impl Files {
    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    /// The present one first. What is rotated meanwhile may appear twice: the second time it is left out.
    fn open(&self) -> io::Result<Vec<File>> {
        let mut files: Vec<(u64, File)> = Vec::new();
        for number in 0..self.most {
            match File::open(self.numbered(number)) {
                Ok(file) => {
                    let inode = file.metadata()?.ino();
                    if !files.iter().any(|(known, _)| *known == inode) {
                        files.push((inode, file));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files.into_iter().map(|(_, file)| file).collect())
    }
}

/// A file that is being read, and what has come of a line that is not whole.
struct Reader {
    file: Option<File>,
    inode: u64,
    position: u64,
    partial: Vec<u8>,
}

impl Reader {
    fn new(file: File) -> io::Result<Reader> {
        let inode = file.metadata()?.ino();
        Ok(Reader { file: Some(file), inode, position: 0, partial: Vec::new() })
    }

    /// The next lines that are whole, as far as the file goes now; empty at its end.
    fn lines(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        if file.metadata()?.len() < self.position {
            // Begun anew.
            self.position = file.seek(SeekFrom::Start(0))?;
            self.partial.clear();
        }
        let mut buffer = [0; 64 * 1024];
        loop {
            let got = file.read(&mut buffer)?;
            if got == 0 {
                return Ok(Vec::new());
            }
            self.position += got as u64;
            self.partial.extend_from_slice(&buffer[..got]);
            if let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.partial.split_off(end + 1);
                let whole = std::mem::replace(&mut self.partial, rest);
                return Ok(whole.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect());
            }
        }
    }
}

/// What to do after a line.
#[derive(PartialEq)]
enum After {
    Go,
    Stop,
}

fn parse(line: &[u8]) -> Option<Line> {
    let written: Written = serde_json::from_slice(line).ok()?;
    let stream = if written.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
    Some(Line { stream, time: written.time, text: written.log })
}

/// A line as it is wanted; one that makes no sense is passed over.
fn wanted(line: &[u8], query: &Query) -> Result<Option<Line>, After> {
    let Some(line) = parse(line) else { return Ok(None) };
    if query.until.is_some_and(|until| line.time > until) {
        return Err(After::Stop);
    }
    let stream = match line.stream {
        Stream::Stdout => query.stdout,
        Stream::Stderr => query.stderr,
    };
    let late = query.since.is_none_or(|since| line.time >= since);
    Ok((stream && late).then_some(line))
}

/// What is there already. The reader stands at the end of the present file; `None` if nothing more is wanted.
fn history(files: &Files, query: &Query, sender: &mpsc::Sender<io::Result<Line>>) -> io::Result<Option<Reader>> {
    let mut open = files.open()?;
    if let Some(tail) = query.tail {
        // From the newest back, until there are enough lines.
        let mut left = tail;
        let mut keep = 0;
        for file in &mut open {
            let before = seek_lines_back(file, left)?;
            keep += 1;
            left -= before;
            if left == 0 {
                break;
            }
        }
        open.truncate(keep);
    }
    let mut reader = None;
    let mut spare: VecDeque<Line> = VecDeque::new();
    for file in open.into_iter().rev() {
        let mut file = file;
        let position = file.stream_position()?;
        let mut one = Reader { position, ..Reader::new(file)? };
        loop {
            let lines = one.lines()?;
            if lines.is_empty() {
                break;
            }
            for line in lines {
                match wanted(&line, query) {
                    Ok(Some(line)) => spare.push_back(line),
                    Ok(None) => {}
                    Err(_) => {
                        send_all(&mut spare, sender);
                        return Ok(None);
                    }
                }
            }
            if !send_all(&mut spare, sender) {
                return Ok(None);
            }
        }
        reader = Some(one);
    }
    let none = Reader { file: None, inode: 0, position: 0, partial: Vec::new() };
    Ok(Some(reader.unwrap_or(none)))
}

fn send_all(lines: &mut VecDeque<Line>, sender: &mpsc::Sender<io::Result<Line>>) -> bool {
    lines.drain(..).all(|line| sender.blocking_send(Ok(line)).is_ok())
}

/// Move to where the last `count` lines begin: how many there are.
fn seek_lines_back(file: &mut File, count: usize) -> io::Result<usize> {
    const BLOCK: u64 = 64 * 1024;
    let end = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    let mut at = end;
    if count == 0 {
        return Ok(0);
    }
    let mut buffer = vec![0; BLOCK as usize];
    while at > 0 {
        let size = BLOCK.min(at);
        at -= size;
        file.seek(SeekFrom::Start(at))?;
        let block = &mut buffer[..size as usize];
        file.read_exact(block)?;
        for (offset, byte) in block.iter().enumerate().rev() {
            // The file's last newline ends its last line and begins none.
            if *byte == b'\n' && at + (offset as u64) + 1 < end {
                found += 1;
                if found == count {
                    file.seek(SeekFrom::Start(at + offset as u64 + 1))?;
                    return Ok(count);
                }
            }
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(if end > 0 { found + 1 } else { 0 })
}

async fn follow(
    files: &Files,
    mut reader: Reader,
    query: &Query,
    watch: &kernel::directory::Watch,
    sender: &mpsc::Sender<io::Result<Line>>,
    ended: impl Future<Output = ()>,
) {
    tokio::pin!(ended);
    let mut over = false;
    loop {
        match catch_up(files, &mut reader, query, sender).await {
            Ok(After::Go) if !over => {}
            Ok(_) => return,
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
        tokio::select! {
            () = &mut ended => over = true,
            () = sender.closed() => return,
            changed = watch.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Read what has come since, over rotations.
async fn catch_up(
    files: &Files,
    reader: &mut Reader,
    query: &Query,
    sender: &mpsc::Sender<io::Result<Line>>,
) -> io::Result<After> {
    loop {
        loop {
            let lines = reader.lines()?;
            if lines.is_empty() {
                break;
            }
            for line in lines {
                match wanted(&line, query) {
                    Ok(Some(line)) => {
                        if sender.send(Ok(line)).await.is_err() {
                            return Ok(After::Stop);
                        }
                    }
                    Ok(None) => {}
                    Err(stop) => return Ok(stop),
                }
            }
        }
        // The one after ours, by age: several rotations may have passed.
        let mut newer = None;
        for file in files.open()? {
            if file.metadata()?.ino() == reader.inode {
                break;
            }
            newer = Some(file);
        }
        match newer {
            None => return Ok(After::Go),
            Some(file) => {
                // What was written between our last look and the rotation.
                let rest = reader.lines()?;
                for line in rest {
                    if let Ok(Some(line)) = wanted(&line, query)
                        && sender.send(Ok(line)).await.is_err()
                    {
                        return Ok(After::Stop);
                    }
                }
                *reader = Reader::new(file)?;
            }
        }
    }
}
