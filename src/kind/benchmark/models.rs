//! Models that are measured: what each is asked to do, and the processes that do it.
//!
//! Each model has one process for each backend, for all its workloads: rounds of all of them can take turns, and no model is in
//! another's way. What a workload holds of memory is looked at before, in a process for itself; and the model is opened in a
//! new process each round where that is what is measured.

use std::path::PathBuf;

use serde::Deserialize;

use super::work::{Opened, Round, Task};
use crate::action::worker::{Worker, Workers};
use crate::backend::Backend;
use crate::export::opened::{self, Facts};
use crate::export::source::Part as Exported;
use crate::failure::Failure;
use crate::kind::exported::{runs, weight_bytes};
use crate::kind::speed::{BATCH, GENERATE, PROMPT};
use crate::kind::{ActionCx, features};
use crate::measure::Sample;
use crate::measure::kept::{By, Memory, OfModel};
use crate::measure::workload::{Load, Work, Workload};
use crate::model::Config;
use crate::recipe::decl::Problems;
use crate::util::{fs, pages};

/// A workload as a recipe has it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Asked {
    name: String,
    prompt: Option<usize>,
    generate: Option<usize>,
    texts: Option<usize>,
    length: Option<usize>,
    pictures: Option<usize>,
    size: Option<usize>,
    load: Option<Load>,
}

/// Tokens of a text where it is not said: what a sentence takes. All else is as `speed` has it.
const LENGTH: usize = 32;

impl Asked {
    /// Finds what is wrong with it by itself; `path` is its place.
    pub(super) fn check(&self, path: &str, problems: &mut Problems<'_>) {
        let leads = [
            ("prompt", self.prompt.is_some()),
            ("texts", self.texts.is_some()),
            ("pictures", self.pictures.is_some()),
            ("load", self.load.is_some()),
        ];
        let mut given = leads.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name);
        let (first, second) = (given.next(), given.next());
        if let Some((first, second)) = first.zip(second) {
            let message = format!("the workload `{}` has `{first}` and `{second}`, which are two workloads", self.name);
            problems.at(&format!("{path}.{second}"), message, "one too many", "make it two, each with a name");
            return;
        }
        let Some(first) = first else {
            let message = format!("the workload `{}` does not say what is done", self.name);
            let help = "give it prompt=256 generate=64, texts=16, pictures=16 or load=\"cold\"";
            problems.at(path, message, "nothing to do", help);
            return;
        };
        let with = [
            ("generate", self.generate.is_some(), "prompt"),
            ("length", self.length.is_some(), "texts"),
            ("size", self.size.is_some(), "pictures"),
        ];
        for (name, _, lead) in with.into_iter().filter(|(_, is_given, lead)| *is_given && *lead != first) {
            let message = format!("`{name}` goes with `{lead}`, and the workload `{}` has `{first}`", self.name);
            problems.at(&format!("{path}.{name}"), message, format!("of `{lead}`"), "leave it out");
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// With its sizes, for a model; or why that cannot do it.
    fn workload(&self, of: &Abilities) -> Result<Workload, String> {
        let Self { name, .. } = self;
        let work = match (self.prompt, self.texts, self.pictures, self.load) {
            (Some(prompt), ..) => {
                let most = of.language.ok_or("`prompt` is of language models")?;
                let generate = self.generate.unwrap_or(0);
                if prompt + generate > most {
                    return Err(format!("{} tokens are more than the {most} that it reads", prompt + generate));
                }
                Work::Tokens { prompt, generate }
            }
            (_, Some(texts), ..) => {
                let most = of.texts.ok_or("`texts` is of models that encode texts")?;
                let length = self.length.unwrap_or(LENGTH.min(most));
                if length > most {
                    return Err(format!("texts of {length} tokens are longer than the {most} that it reads"));
                }
                Work::Texts { texts, length }
            }
            (_, _, Some(pictures), _) => {
                let (own, is_fixed) = of.pictures.ok_or("`pictures` is of models that encode pictures")?;
                let size = self.size.unwrap_or(own);
                if is_fixed && size != own {
                    return Err(format!("it sees pictures of {own} pixels a side, and no others"));
                }
                Work::Pictures { pictures, size }
            }
            (.., load) => Work::Load { load: load.expect("a workload that was checked says what is done") },
        };
        Ok(Workload { name: name.clone(), work })
    }
}

/// What a model can do, by its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Abilities {
    /// As a language model it reads so many tokens at most.
    language: Option<usize>,
    /// As an encoder of texts likewise.
    texts: Option<usize>,
    /// It sees pictures of so many pixels a side, and perhaps no others.
    pictures: Option<(usize, bool)>,
}

impl Abilities {
    fn of(config: &Config) -> Self {
        let reads = config.tokens().map(|(_, most)| most);
        match config {
            Config::Llama(_) => Self { language: reads, ..Self::default() },
            Config::Bert(_) => Self { texts: reads, ..Self::default() },
            Config::EfficientnetLite { preprocessing, .. } => {
                Self { pictures: Some((preprocessing.size, false)), ..Self::default() }
            }
            Config::DualEncoder { preprocessing, .. } => {
                Self { texts: reads, pictures: Some((preprocessing.size, false)), ..Self::default() }
            }
            Config::Clip(config) => {
                Self { texts: reads, pictures: Some((config.vision_config.image_size, true)), ..Self::default() }
            }
        }
    }

    /// Of a part of a model that is a file of its own.
    fn of_export(config: &Config, part: Exported) -> Self {
        let whole = Self::of(config);
        match part {
            Exported::Language => whole,
            Exported::Text => Self { pictures: None, ..whole },
            Exported::Picture => Self { texts: None, pictures: whole.pictures.map(|(size, _)| (size, true)), ..whole },
        }
    }

    /// What it is in words.
    fn text(&self) -> &'static str {
        match (self.language, self.texts, self.pictures) {
            (Some(_), ..) => "a language model",
            (_, Some(_), Some(_)) => "an encoder of texts and pictures",
            (_, Some(_), None) => "an encoder of texts",
            _ => "an encoder of pictures",
        }
    }

    /// What it does where nothing is asked.
    fn usual(&self) -> Vec<Workload> {
        let workload = |name: &str, work| Workload { name: name.into(), work };
        let tokens = self.language.map(|most| {
            let generate = GENERATE.min(most / 2);
            workload("tokens", Work::Tokens { prompt: PROMPT.min(most - generate), generate })
        });
        let texts = self.texts.map(|most| workload("texts", Work::Texts { texts: BATCH, length: LENGTH.min(most) }));
        let pictures = self.pictures.map(|(size, _)| workload("pictures", Work::Pictures { pictures: BATCH, size }));
        [tokens, texts, pictures].into_iter().flatten().collect()
    }
}

/// A model that is measured.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    name: String,
    /// Of an export, what runs it, and by which name and version a record has that.
    pub(super) program: Option<(&'static str, String)>,
    task: Task,
    workloads: Vec<Workload>,
}

impl Measured {
    /// Of a subject of this name: what it does of what is asked, all of which it must be able to.
    pub(super) fn of(cx: &ActionCx<'_>, name: &str, label: &str, asked: &[Asked], seed: u64) -> Result<Self, Failure> {
        let dir = cx.input(label).to_owned();
        let base = features::base_of(cx, &dir)?;
        let whole = base.as_deref().unwrap_or(&dir);
        if !whole.join("config.json").exists() {
            return Err(Failure::user(format!("subject `{name}`: {label} is no model: it has no config.json"))
                .help("after `model=` stands a model, an adapter, a quantized model or an export"));
        }
        let (config, export) = (Config::read(whole)?, runs(cx, &dir)?);
        let abilities = match Facts::read(&dir)? {
            Some(facts) => Abilities::of_export(&config, facts.part()?),
            None => Abilities::of(&config),
        };
        let workloads = asked.iter().map(|asked| {
            asked.workload(&abilities).map_err(|why| {
                let what = format!("workload `{}`: {label} is {}: {why}", asked.name, abilities.text());
                Failure::user(what).help("change the workload, or measure that model in a benchmark of its own")
            })
        });
        let workloads = if asked.is_empty() { abilities.usual() } else { workloads.collect::<Result<_, _>>()? };
        let label = label.to_owned();
        let works = Vec::new();
        let program = export.as_ref().map(|runs| opened::program(&dir, runs.environment.as_deref())).transpose()?;
        let (backend, forgets_peak, threads) = (Backend::Candle, false, cx.threads);
        let task = Task { dir, base, label, export, backend, threads, works, seed, forgets_peak };
        Ok(Self { name: name.to_owned(), program, task, workloads })
    }

    /// The files that are read when it is opened.
    fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut files = Vec::new();
        for dir in [Some(&self.task.dir), self.task.base.as_ref()].into_iter().flatten() {
            files.extend(fs::list(dir)?.into_iter().filter(|path| path.is_file()));
        }
        Ok(files)
    }
}

/// Something that a model is measured at.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its subject's name.
    pub(super) name: String,
    /// What is told of it.
    pub(super) model: OfModel,
    /// Which of the models.
    of: usize,
    does: Does,
}

#[derive(Clone, Copy, Debug)]
enum Does {
    /// A work of the process at this place, by the work's own.
    Round(usize, usize),
    Load(Load),
}

/// All that models are measured at, and how.
#[derive(Debug)]
pub(super) struct Models {
    measured: Vec<Measured>,
    /// By workload, then by backend, then by model.
    pub(super) parts: Vec<Part>,
    /// Of each process its task.
    tasks: Vec<Task>,
    /// What cannot be measured here, and why.
    pub(super) left_out: Vec<String>,
}

impl Models {
    /// Of these models, each on each backend.
    pub(super) fn new(measured: Vec<Measured>, backends: &[Backend]) -> Result<Self, Failure> {
        let mut workloads: Vec<&Workload> = Vec::new();
        for workload in measured.iter().flat_map(|model| &model.workloads) {
            if !workloads.contains(&workload) {
                workloads.push(workload);
            }
        }
        let mut models = Self { parts: Vec::new(), tasks: Vec::new(), left_out: Vec::new(), measured: Vec::new() };
        let processes = processes(&measured, backends);
        models.tasks.extend(processes.iter().map(|(by, of)| measured[*of].task.by(by)));
        for workload in workloads {
            if workload.work == (Work::Load { load: Load::Cold }) && !can_forget(&measured)? {
                let name = &workload.name;
                models.left_out.push(format!("{name}: this system does not forget files that it has read"));
                continue;
            }
            for (process, (by, of)) in processes.iter().enumerate() {
                let model = &measured[*of];
                if !model.workloads.contains(workload) {
                    continue;
                }
                let does = match workload.work {
                    Work::Load { load } => Does::Load(load),
                    work => {
                        let works = &mut models.tasks[process].works;
                        works.push(work);
                        Does::Round(process, works.len() - 1)
                    }
                };
                let (label, workload) = (model.task.label.clone(), workload.clone());
                let told = OfModel { label, backend: by.clone(), workload, memory: None };
                models.parts.push(Part { name: model.name.clone(), model: told, of: *of, does });
            }
        }
        models.measured = measured;
        Ok(models)
    }

    /// Looks what each workload holds of memory: in a process for itself, that gives back at once what it does not use.
    pub(super) fn look(&mut self, cx: &mut ActionCx<'_>, workers: &Workers) -> Result<(), Failure> {
        let all = self.parts.len() as u64;
        for (done, part) in self.parts.iter_mut().enumerate() {
            if let Does::Round(process, work) = part.does {
                let works = vec![self.tasks[process].works[work]];
                let task = Task { works, forgets_peak: true, ..self.tasks[process].clone() };
                let look = || -> Result<Memory, Failure> {
                    let mut worker = workers.start(&task, &[("MIMALLOC_PURGE_DELAY", "0")])?;
                    let opened: Opened = worker.answer()?;
                    let Round { peak_bytes, .. } = worker.ask(0)?;
                    Ok(Memory {
                        weight_bytes: opened.weight_bytes,
                        load_peak_bytes: opened.peak_bytes,
                        resident_bytes: opened.resident_bytes,
                        peak_bytes,
                        token_bytes: opened.token_bytes,
                    })
                };
                part.model.memory = Some(look().map_err(|failure| failure.within(part.place()))?);
            }
            cx.progress("memory", done as u64 + 1, all, "workloads");
        }
        Ok(())
    }

    /// Opens each model on each backend, and waits until all are open.
    pub(super) fn open<'a>(&'a self, workers: &'a Workers) -> Result<Ready<'a>, Failure> {
        let mut processes = Vec::new();
        for task in &self.tasks {
            let is_asked = !task.works.is_empty();
            let start = || -> Result<(Worker, Opened), Failure> {
                let mut worker = workers.start(task, &[])?;
                let opened = worker.answer()?;
                Ok((worker, opened))
            };
            let of = |failure: Failure| failure.within(task.label.clone());
            processes.push(is_asked.then(start).transpose().map_err(of)?);
        }
        let process =
            |(worker, opened): (Worker, Opened)| Process { worker, began_s: opened.spent_s, spent_s: opened.spent_s };
        let processes = processes.into_iter().map(|of| of.map(process)).collect();
        Ok(Ready { models: self, workers, processes })
    }
}

impl Part {
    /// Where something went wrong: "subject `q4`, workload `chat` on candle".
    fn place(&self) -> String {
        let OfModel { workload, backend, .. } = &self.model;
        format!("subject `{}`, workload `{}` on {}", self.name, workload.name, backend.name())
    }
}

/// What computes each model, backend after backend; an export is run by its own program, beside the first.
fn processes(measured: &[Measured], backends: &[Backend]) -> Vec<(By, usize)> {
    let mut all = Vec::new();
    for pass in 0..backends.len().max(1) {
        for (of, model) in measured.iter().enumerate() {
            match (&model.program, backends.get(pass)) {
                (Some((name, _)), _) if pass == 0 => all.push((By::Program((*name).to_owned()), of)),
                (None, Some(backend)) => all.push((By::Backend(*backend), of)),
                _ => {}
            }
        }
    }
    all
}

/// Whether the system forgets the weights of all these models when it is asked to.
fn can_forget(measured: &[Measured]) -> Result<bool, Failure> {
    for model in measured {
        let mut largest = (0, PathBuf::new());
        for file in model.files()? {
            largest = largest.max((fs::at("look at", &file, file.metadata())?.len(), file));
        }
        // Of nothing, nothing is forgotten.
        if largest.0 == 0 || !pages::is_forgotten(&largest.1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What somebody else is reading just then stays: it is tried again.
const ASKED: usize = 3;

/// Of a model's weights this share at least comes from the disk when it is opened cold.
const FETCHED: f64 = 0.75;

/// Models that are open.
pub(super) struct Ready<'a> {
    models: &'a Models,
    workers: &'a Workers,
    /// None of those whose models are only opened.
    processes: Vec<Option<Process>>,
}

struct Process {
    worker: Worker,
    /// CPU time of it when rounds began, and when the last one ended.
    began_s: f64,
    spent_s: f64,
}

impl Ready<'_> {
    /// One round of what models are measured at.
    pub(super) fn run(&mut self, part: usize) -> Result<Sample, Failure> {
        let part = &self.models.parts[part];
        let sample = match part.does {
            Does::Round(process, work) => {
                let process = self.processes[process].as_mut().expect("a model with works is open");
                process.worker.ask(work).map(|round: Round| {
                    process.spent_s = round.spent_s;
                    let Round { wall_s, cpu_s, first_s, peak_bytes, .. } = round;
                    Sample { wall_s, cpu_s, peak_bytes, first_s }
                })
            }
            Does::Load(load) => self.load(part, load),
        };
        sample.map_err(|failure| failure.within(part.place()))
    }

    fn load(&self, part: &Part, load: Load) -> Result<Sample, Failure> {
        let model = &self.models.measured[part.of];
        let task = model.task.by(&part.model.backend);
        let weights = weight_bytes(&task.dir)? + task.base.as_deref().map_or(Ok(0), weight_bytes)?;
        for _ in 0..ASKED {
            if load == Load::Cold {
                model.files()?.iter().try_for_each(|file| pages::forget(file))?;
            }
            let Opened { wall_s, cpu_s, peak_bytes, fetched_bytes, .. } = self.workers.start(&task, &[])?.answer()?;
            if load == Load::Warm || fetched_bytes.is_some_and(|bytes| bytes as f64 >= FETCHED * weights as f64) {
                return Ok(Sample { wall_s, cpu_s, peak_bytes, first_s: None });
            }
        }
        let what = format!("the files of {} stay in memory", model.task.label);
        Err(Failure::environment(what).help("build again when no other program reads them"))
    }

    /// CPU time of all rounds in these processes, which still run.
    pub(super) fn spent_s(&self) -> f64 {
        self.processes.iter().flatten().map(|process| process.spent_s - process.began_s).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Asked = Asked {
        name: String::new(),
        prompt: None,
        generate: None,
        texts: None,
        length: None,
        pictures: None,
        size: None,
        load: None,
    };

    #[test]
    fn a_workload_has_its_sizes_or_says_why_a_model_cannot_do_it() {
        let language = Abilities { language: Some(64), ..Abilities::default() };
        let clip = Abilities { texts: Some(77), pictures: Some((224, true)), ..Abilities::default() };
        let network = Abilities { pictures: Some((160, false)), ..Abilities::default() };
        let check = |asked: Asked, of: &Abilities, expected: &str| {
            let found = asked.workload(of).map_or_else(|why| why, |workload| workload.work.to_string());
            assert_eq!(found, expected);
        };
        check(Asked { prompt: Some(60), generate: Some(4), ..NOTHING }, &language, "prompt=60 generate=4");
        let long = Asked { prompt: Some(60), generate: Some(5), ..NOTHING };
        check(long.clone(), &language, "65 tokens are more than the 64 that it reads");
        check(long, &clip, "`prompt` is of language models");
        check(Asked { texts: Some(2), ..NOTHING }, &clip, "texts=2 length=32");
        let long = Asked { texts: Some(2), length: Some(78), ..NOTHING };
        check(long, &clip, "texts of 78 tokens are longer than the 77 that it reads");
        check(Asked { texts: Some(2), ..NOTHING }, &network, "`texts` is of models that encode texts");
        let small = Asked { pictures: Some(3), size: Some(64), ..NOTHING };
        check(small.clone(), &clip, "it sees pictures of 224 pixels a side, and no others");
        check(small.clone(), &network, "pictures=3 size=64");
        check(small, &language, "`pictures` is of models that encode pictures");
        check(Asked { pictures: Some(3), ..NOTHING }, &network, "pictures=3 size=160");
        check(Asked { load: Some(Load::Warm), ..NOTHING }, &network, "load=\"warm\"");
    }

    #[test]
    fn what_is_usual_is_what_a_model_can_do() {
        let usual = |abilities: Abilities| {
            let texts = abilities.usual().into_iter().map(|workload| format!("{}: {}", workload.name, workload.work));
            texts.collect::<Vec<_>>().join("; ")
        };
        let of = Abilities::default();
        assert_eq!(usual(Abilities { language: Some(8192), ..of }), "tokens: prompt=256 generate=64");
        assert_eq!(usual(Abilities { language: Some(64), ..of }), "tokens: prompt=32 generate=32");
        let both = Abilities { texts: Some(20), pictures: Some((224, true)), ..of };
        assert_eq!(usual(both), "texts: texts=16 length=20; pictures: pictures=16 size=224");
        assert_eq!((both.text(), of.usual().len()), ("an encoder of texts and pictures", 0));
    }

    #[test]
    fn parts_stand_by_workload_then_backend_then_model() {
        let model = |name: &str, works: &[(&str, Work)]| Measured {
            name: name.into(),
            program: None,
            task: Task {
                dir: "d".into(),
                base: None,
                label: format!("models/{name}"),
                export: None,
                threads: 1,
                backend: Backend::Candle,
                works: Vec::new(),
                seed: 1,
                forgets_peak: false,
            },
            workloads: works.iter().map(|(name, work)| Workload { name: (*name).into(), work: *work }).collect(),
        };
        let chat = ("chat", Work::Tokens { prompt: 8, generate: 2 });
        let warm = ("warm", Work::Load { load: Load::Warm });
        let long = ("long", Work::Tokens { prompt: 9, generate: 0 });
        let models = vec![model("a", &[chat, warm, long]), model("b", &[chat, warm])];
        let models = Models::new(models, &[Backend::Candle, Backend::Mlx]).unwrap();
        let parts = models.parts.iter().map(|part| {
            let OfModel { workload, backend, .. } = &part.model;
            format!("{} {} {}", workload.name, backend.name(), part.name)
        });
        let expected = [
            "chat candle a",
            "chat candle b",
            "chat mlx a",
            "chat mlx b",
            "warm candle a",
            "warm candle b",
            "warm mlx a",
            "warm mlx b",
            "long candle a",
            "long mlx a",
        ];
        assert_eq!(parts.collect::<Vec<_>>(), expected);
        // Both of one process: the prompt alone is its second work.
        assert_eq!(models.tasks[2].works, [chat.1, long.1]);
        assert!(matches!((models.parts[9].does, models.parts[6].does), (Does::Round(2, 1), Does::Load(Load::Warm))));
    }
}
