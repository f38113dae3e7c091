//! What is measured, by whole commands as people type them. Peers alternate, so that what the machine does meanwhile
//! meets them all.

use super::peers::Peer;
use anyhow::Context;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Many times the same, by each engine.
pub struct Figure {
    pub what: String,
    pub unit: &'static str,
    pub bar: Bar,
    /// In the order of the peers. None where an engine cannot.
    pub measured: Vec<Vec<f64>>,
    pub floor: Vec<f64>,
}

/// What Isle shall reach, by medians.
#[derive(Clone, Copy)]
pub enum Bar {
    /// No more than this part of the faster peer's.
    PartOfPeer(f64),
    /// No less than so many times the faster peer's.
    TimesPeer(f64),
    /// No more than this, in the figure's unit.
    AtMost(f64),
}

/// Start latency, as containers become more: seconds, one for each container, by each engine.
pub struct Growth(pub Vec<Vec<f64>>);

const NETWORK: &str = "bench";

/// How much is done.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Repetitions of each figure.
    pub runs: usize,
    /// Containers on one network.
    pub containers: usize,
}

pub fn all(peers: &[Peer], effort: Effort) -> anyhow::Result<(Vec<Figure>, Growth)> {
    let mut figures = vec![at_rest(peers)?];
    for peer in peers {
        peer.tell(&["network", "create", NETWORK])?;
    }
    figures.push(run(peers, effort)?);
    figures.extend(networks(peers, effort)?);
    figures.push(first_byte(peers, effort)?);
    figures.push(names(peers, effort)?);
    figures.push(ranges(&peers[0], effort)?);
    let (scale, growth) = many(peers, effort)?;
    figures.extend(scale);
    Ok((figures, growth))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The same by all peers, in turn, again and again; the first time is for warming up.
fn alternate(
    peers: &[Peer],
    runs: usize,
    each: impl Fn(&Peer, usize) -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut measured = vec![Vec::new(); peers.len()];
    for round in 0..=runs {
        for (peer, values) in peers.iter().zip(&mut measured) {
            let value = each(peer, round).with_context(|| peer.name.clone())?;
            if round > 0 {
                values.push(value);
            }
        }
    }
    Ok(measured)
}

fn at_rest(peers: &[Peer]) -> anyhow::Result<Figure> {
    let measured =
        peers.iter().map(|peer| Ok(vec![peer.memory()?.1 as f64 / 1024.0])).collect::<anyhow::Result<_>>()?;
    let what = "daemons at rest, resident".into();
    Ok(Figure { what, unit: "MB", bar: Bar::AtMost(20.0), measured, floor: Vec::new() })
}

fn run(peers: &[Peer], effort: Effort) -> anyhow::Result<Figure> {
    let words = ["run", "--rm", "--network", NETWORK, "busybox", "true"];
    let measured = alternate(peers, effort.runs, |peer, _| Ok(milliseconds(peer.time(&words)?)))?;
    // The same namespaces and one program, by a tool that does nothing else.
    let floor = (0..effort.runs).map(|_| {
        let begin = Instant::now();
        let spaces = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "/bin/busybox", "true"];
        Command::new("unshare").args(spaces).status()?;
        Ok(milliseconds(begin.elapsed()))
    });
    let floor = floor.collect::<anyhow::Result<_>>()?;
    let what = "`run --rm busybox true` on a user network".into();
    Ok(Figure { what, unit: "ms", bar: Bar::PartOfPeer(1.0 / 20.0), measured, floor })
}

fn networks(peers: &[Peer], effort: Effort) -> anyhow::Result<[Figure; 2]> {
    let bar = Bar::PartOfPeer(0.1);
    let create = alternate(peers, effort.runs, |peer, round| {
        Ok(milliseconds(peer.time(&["network", "create", &format!("n{round}")])?))
    })?;
    let remove = alternate(peers, effort.runs, |peer, round| {
        Ok(milliseconds(peer.time(&["network", "rm", &format!("n{round}")])?))
    })?;
    let figure = |what: &str, measured| Figure { what: what.into(), unit: "ms", bar, measured, floor: Vec::new() };
    Ok([figure("`network create`", create), figure("`network rm`", remove)])
}

fn first_byte(peers: &[Peer], effort: Effort) -> anyhow::Result<Figure> {
    for peer in peers {
        peer.tell(&["run", "-d", "--name", "poll", "--network", NETWORK, "busybox", "sleep", "3600"])?;
    }
    let measured = alternate(peers, effort.runs, |peer, round| {
        let (name, server) = (format!("web{round}"), peer.nameserver("poll")?);
        let us = std::env::current_exe()?.display().to_string();
        let mut poll = peer.inside("poll", &[&us, "poll", &server, &name])?;
        let poll = poll.stdout(Stdio::piped()).spawn()?;
        // It is asking by now.
        std::thread::sleep(Duration::from_millis(100));
        let begin = SystemTime::now();
        peer.tell(&["run", "-d", "--name", &name, "--network", NETWORK, "busybox", "httpd", "-f", "-p", "80"])?;
        let said = String::from_utf8(poll.wait_with_output()?.stdout)?;
        let first: f64 = said.trim().parse().context("no first byte")?;
        peer.remove(&[&name])?;
        Ok(first - begin.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64() * 1000.0)
    })?;
    let what = "`run -d` of busybox's httpd until the first byte, by name".into();
    Ok(Figure { what, unit: "ms", bar: Bar::PartOfPeer(1.0 / 8.0), measured, floor: Vec::new() })
}

fn names(peers: &[Peer], effort: Effort) -> anyhow::Result<Figure> {
    let questions = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
    std::fs::write(&questions, "poll A\n")?;
    let measured = alternate(peers, effort.runs.min(5), |peer, _| {
        let server = peer.nameserver("poll")?;
        let words = ["dnsperf", "-s", &server, "-d", &questions.display().to_string(), "-l", "1", "-c", "4", "-T", "1"];
        let said = peer.inside("poll", &words)?.output().context("dnsperf")?.stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let rate = said.lines().find_map(|l| l.trim().strip_prefix("Queries per second:")?.trim().parse().ok());
        rate.with_context(|| format!("no rate in: {said}"))
    })?;
    std::fs::remove_file(&questions)?;
    for peer in peers {
        peer.remove(&["poll"])?;
    }
    let what = "name queries, two containers".into();
    Ok(Figure { what, unit: "q/s", bar: Bar::TimesPeer(2.0), measured, floor: Vec::new() })
}

/// Ten thousand ports beside one, by Isle alone.
fn ranges(isle: &Peer, effort: Effort) -> anyhow::Result<Figure> {
    let start = |ports: &str| {
        let words = ["run", "-d", "--name", "ports", "--network", NETWORK, "-p", ports, "busybox", "sleep", "60"];
        let took = isle.time(&words)?;
        isle.remove(&["ports"])?;
        Ok::<_, anyhow::Error>(milliseconds(took))
    };
    let mut sides = [Vec::new(), Vec::new()];
    for _ in 0..effort.runs {
        sides[0].push(start("10000-19999:10000-19999")?);
        sides[1].push(start("10000:10000")?);
    }
    let [many, one] = sides;
    let bar = Bar::AtMost(1.1 * median(&one));
    let what = format!("`run -d -p 10000-19999:10000-19999`, where one port takes {:.1} ms", median(&one));
    Ok(Figure { what, unit: "ms", bar, measured: vec![many], floor: one })
}

fn many(peers: &[Peer], effort: Effort) -> anyhow::Result<(Vec<Figure>, Growth)> {
    let names: Vec<String> = (0..effort.containers).map(|n| format!("s{n}")).collect();
    let before = peers.iter().map(Peer::memory).collect::<anyhow::Result<Vec<_>>>()?;
    let mut starts = vec![Vec::new(); peers.len()];
    for name in &names {
        for (peer, starts) in peers.iter().zip(&mut starts) {
            let words = ["run", "-d", "--name", name, "--network", NETWORK, "busybox", "sleep", "3600"];
            starts.push(milliseconds(peer.time(&words)?));
        }
    }
    let share = |(peer, before): (&Peer, &(u64, u64))| {
        let grown = peer.memory()?.0.saturating_sub(before.0);
        Ok(vec![grown as f64 / effort.containers as f64])
    };
    let memory = peers.iter().zip(&before).map(share).collect::<anyhow::Result<Vec<_>>>()?;
    let listed = alternate(peers, effort.runs, |peer, _| Ok(milliseconds(peer.time(&["ps"])?)))?;
    let inspected =
        alternate(peers, effort.runs, |peer, _| Ok(milliseconds(peer.time(&["network", "inspect", NETWORK])?)))?;
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let removed = peers.iter().map(|peer| Ok(vec![milliseconds(peer.remove(&all)?)]));
    let removed = removed.collect::<anyhow::Result<Vec<_>>>()?;
    let growth = starts.iter().map(|starts| vec![mean(last_ten(starts)) / mean(first_ten(starts))]).collect();
    let n = effort.containers;
    let figure = |what: String, unit, bar, measured| Figure { what, unit, bar, measured, floor: Vec::new() };
    let figures = vec![
        figure(format!("start of the last ten of {n} over the first ten"), "", Bar::AtMost(1.1), growth),
        figure(format!("memory for each of {n} containers (PSS)"), "KiB", Bar::AtMost(120.0), memory),
        figure(format!("`ps` with {n} containers"), "ms", Bar::AtMost(10.0), listed),
        figure(format!("`network inspect` with {n} members"), "ms", Bar::AtMost(10.0), inspected),
        figure(format!("removal of {n} containers"), "ms", Bar::PartOfPeer(1.0 / 20.0), removed),
    ];
    Ok((figures, Growth(starts)))
}

fn first_ten(values: &[f64]) -> &[f64] {
    &values[..values.len().min(10)]
}

fn last_ten(values: &[f64]) -> &[f64] {
    &values[values.len().saturating_sub(10)..]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The middle one, or the mean of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Waits in a container's network for the first byte of an HTTP server with this name: when it came, in milliseconds.
pub fn poll(server: &str, name: &str) -> anyhow::Result<()> {
    use std::io::{Read, Write};
    let resolver = std::net::UdpSocket::bind("0.0.0.0:0")?;
    resolver.connect((server, 53))?;
    resolver.set_read_timeout(Some(Duration::from_secs(1)))?;
    let question = testkit::dns::question(1, name, testkit::dns::A);
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        let mut answer = [0; 1500];
        resolver.send(&question)?;
        let Ok(length) = resolver.recv(&mut answer) else { continue };
        let Some(address) = testkit::dns::addresses(&answer[..length]).first().copied() else { continue };
        let Ok(mut stream) = std::net::TcpStream::connect_timeout(&(address, 80).into(), Duration::from_secs(1)) else {
            continue;
        };
        stream.write_all(format!("GET / HTTP/1.0\r\nHost: {name}\r\n\r\n").as_bytes())?;
        if stream.read_exact(&mut [0]).is_ok() {
            println!("{}", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64() * 1000.0);
            return Ok(());
        }
    }
    anyhow::bail!("{name} does not answer")
}
