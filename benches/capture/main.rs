//! What it costs a tool that its writes are diverted, and what publishing them costs then.
//!
//! ```sh
//! cargo bench -p txfs-cli --bench capture                           # in target/bench; tools that are not there are left out, and named
//! cargo bench -p txfs-cli --bench capture -- --rounds 11 --case hugo --case rewrite
//! ```
//!
//! Each case is measured in rounds: the bare tool and the captured one, or the two ways to publish, one after the other, the order changing
//! from round to round. Printed are the medians and the median of the rounds' ratios.
//!
//! | case | one side | the other |
//! |---|---|---|
//! | a tool | its default build, from its start to its end | the same, by `txfs run` |
//! | `rewrite` | `rm -rf` and a copy of 10,000 files | the same, by `txfs run` |
//! | `change` | 10 of 10,000 files written by a captured tool, from its end to the end of `txfs run` | `txfs commit` of them, begun with `--from current` |
//! | `full` | 10,000 files written anew by a captured tool, 10 of them other, from its end to the end of `txfs run` | `txfs publish` of them |
//!
//! `TXFS_TOOLS` says where the tools of npm are.

#[path = "../../crates/cli/tests/tools/projects.rs"]
#[allow(dead_code, reason = "here no build has to fail")]
mod projects;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use projects::Project;

type Outcome<T> = Result<T, Box<dyn Error>>;

const FILES: usize = 10_000;

const TOOLS: [Project; 8] = [
    projects::HUGO,
    projects::MKDOCS,
    projects::SPHINX,
    projects::VITE,
    projects::ELEVENTY,
    projects::DOXYGEN,
    projects::CARGO_DOC,
    projects::MAKE,
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Bench {
    dir: PathBuf,
    rounds: usize,
    cases: Vec<String>,
}

fn run() -> Outcome<()> {
    let mut bench = Bench { dir: "target/bench/capture".into(), rounds: 7, cases: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => {}
            "--rounds" => bench.rounds = value()?.parse()?,
            "--case" => bench.cases.push(value()?),
            "--dir" => bench.dir = value()?.into(),
            other => return Err(format!("what is {other}? There are --rounds N, --case NAME and --dir DIR").into()),
        }
    }
    println!("| case | bare, ms | captured, ms | ratio |\n|---|---:|---:|---:|");
    for tool in &TOOLS {
        if bench.wants(tool.name) {
            match succeeds("sh", &["-c", tool.needs]) {
                true => bench.tool(tool)?,
                false => eprintln!("left out: {} is not installed", tool.name),
            }
        }
    }
    if bench.wants("rewrite") {
        bench.rewrite()?;
    }
    if bench.wants("change") {
        bench.change()?;
    }
    if bench.wants("full") {
        bench.full()?;
    }
    Ok(())
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|case| case == name)
    }

    /// An empty directory for a case.
    fn scratch(&self, name: &str) -> Outcome<PathBuf> {
        let dir = self.dir.join(name.replace(' ', "-"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        Ok(dir.canonicalize()?)
    }

    /// Rounds of two measurements, and what they come to.
    fn measure(
        &self,
        name: &str,
        mut one: impl FnMut() -> Outcome<f64>,
        mut other: impl FnMut() -> Outcome<f64>,
    ) -> Outcome<()> {
        let (mut ones, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            let (a, b) = if round % 2 == 0 {
                let a = one()?;
                (a, other()?)
            } else {
                let b = other()?;
                (one()?, b)
            };
            // The first warms up.
            if round > 0 {
                ones.push(a);
                others.push(b);
                ratios.push(b / a);
            }
        }
        println!("| {name} | {:.1} | {:.1} | {:.2} |", median(ones), median(others), median(ratios));
        Ok(())
    }

    fn tool(&self, tool: &Project) -> Outcome<()> {
        let make = |dir: &Path| -> Outcome<()> {
            for (path, content) in tool.files {
                let path = dir.join(path);
                fs::create_dir_all(path.parent().ok_or("a file has a directory")?)?;
                fs::write(path, content)?;
            }
            Ok(())
        };
        let (bare, captured) = (self.scratch("bare")?, self.scratch("captured")?);
        make(&bare)?;
        make(&captured)?;
        let timed = timed(tool.build);
        self.measure(
            tool.name,
            || built(&bare, "sh", &["-ec", &timed], true).map(|built| built.tool),
            || {
                built(&captured, TXFS, &["-q", "run", tool.output, "--", "sh", "-ec", &timed], true)
                    .map(|built| built.tool)
            },
        )
    }

    fn rewrite(&self) -> Outcome<()> {
        let (bare, captured) = (self.scratch("bare")?, self.scratch("captured")?);
        fill(&bare.join("src"))?;
        fill(&captured.join("src"))?;
        let script = timed("rm -rf out; cp -r src out");
        self.measure(
            "rewrite",
            || built(&bare, "sh", &["-ec", &script], true).map(|built| built.tool),
            || built(&captured, TXFS, &["-q", "run", "out", "--", "sh", "-ec", &script], true).map(|built| built.tool),
        )
    }

    fn change(&self) -> Outcome<()> {
        let (staged, captured) = (self.scratch("staged")?, self.scratch("captured")?);
        for dir in [&staged, &captured] {
            fill(&dir.join("src"))?;
            built(dir, TXFS, &["-q", "publish", "out", "src"], false)?;
        }
        let (mut first, mut second) = (0, 0);
        self.measure(
            "change",
            || {
                first += 1;
                let stage = output_of(&staged, TXFS, &["begin", "out", "--from", "current"])?;
                for file in 0..10 {
                    let path = Path::new(stage.trim()).join(name_of(file * 997));
                    fs::create_dir_all(path.parent().ok_or("a file has a directory")?)?;
                    fs::write(path, format!("round {first}"))?;
                }
                let began = Instant::now();
                output_of(&staged, TXFS, &["-q", "commit", stage.trim()])?;
                Ok(ms(began.elapsed()))
            },
            || {
                second += 1;
                let writes = (0..10).map(|file| format!("echo round {second} > out/{}\n", name_of(file * 997)));
                let script = timed(&writes.collect::<String>());
                built(&captured, TXFS, &["-q", "run", "out", "--", "sh", "-ec", &script], true).map(|built| built.after)
            },
        )
    }

    fn full(&self) -> Outcome<()> {
        let (published, captured) = (self.scratch("published")?, self.scratch("captured")?);
        for dir in [&published, &captured] {
            fill(&dir.join("src"))?;
            built(dir, TXFS, &["-q", "publish", "out", "src"], false)?;
        }
        let script = timed("rm -rf out; cp -r src out");
        let (mut first, mut second) = (0, 0);
        let touch = |dir: &Path, round: &mut usize| -> Outcome<()> {
            *round += 1;
            (0..10).try_for_each(|file| {
                Ok(fs::write(dir.join("src").join(name_of(file * 997)), format!("round {round}"))?)
            })
        };
        self.measure(
            "full",
            || {
                touch(&published, &mut first)?;
                // What the captured tool does, too: the files are written anew.
                let copied = output_of(&published, "sh", &["-ec", "rm -rf new; cp -r src new"]);
                copied?;
                let began = Instant::now();
                output_of(&published, TXFS, &["-q", "publish", "out", "new"])?;
                Ok(ms(began.elapsed()))
            },
            || {
                touch(&captured, &mut second)?;
                built(&captured, TXFS, &["-q", "run", "out", "--", "sh", "-ec", &script], true).map(|built| built.after)
            },
        )
    }
}

const TXFS: &str = env!("CARGO_BIN_EXE_txfs");

struct Built {
    /// From the tool's start to its end, ms.
    tool: f64,
    /// From there to the end of the command.
    after: f64,
}

/// A script that notes when it began and ended.
fn timed(script: &str) -> String {
    format!("date +%s%N > \"$TIMES\"\n{script}\ndate +%s%N >> \"$TIMES\"")
}

fn built(dir: &Path, program: &str, arguments: &[&str], is_timed: bool) -> Outcome<Built> {
    let times = dir.join("times");
    output_of_with(dir, program, arguments, Some(&times))?;
    let ended = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    if !is_timed {
        return Ok(Built { tool: 0.0, after: 0.0 });
    }
    let noted: Vec<u128> = fs::read_to_string(times)?.lines().map(str::parse).collect::<Result<_, _>>()?;
    let [began, done] = noted[..] else { return Err("the script did not note its times".into()) };
    let between =
        |from: u128, to: u128| ms(Duration::from_nanos(u64::try_from(to.saturating_sub(from)).unwrap_or(u64::MAX)));
    Ok(Built { tool: between(began, done), after: between(done, ended) })
}

fn output_of(dir: &Path, program: &str, arguments: &[&str]) -> Outcome<String> {
    output_of_with(dir, program, arguments, None)
}

fn output_of_with(dir: &Path, program: &str, arguments: &[&str], times: Option<&Path>) -> Outcome<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    if let Some(times) = times {
        command.env("TIMES", times);
    }
    let output = command.output()?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{program} {arguments:?}: {}: {told}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn name_of(file: usize) -> String {
    format!("{:02}/{file:05}", file % 100)
}

fn fill(dir: &Path) -> Outcome<()> {
    for file in 0..FILES {
        let path = dir.join(name_of(file));
        if file < 100 {
            fs::create_dir_all(path.parent().ok_or("a file has a directory")?)?;
        }
        fs::write(path, format!("{file}\n").repeat(100))?;
    }
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
