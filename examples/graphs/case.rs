//! A program as what is tried: its graph, what it is given in a few runs, and what candle gives.

use effai::backend::trace::TraceTensor;
use effai::backend::{BackendError, CandleTensor, Tensor, Texts};
use effai::export::format::{Format, Options, Precision, Ranges, open, ranges};
use effai::export::graph::{Element, Graph, Size, Symbol};
use effai::export::source::{BATCH, IDS, PAST, SEQUENCE, Tensors, Values};
use effai::export::verify::Allowed;
use effai::export::written::Written;
use effai::failure::Failure;

use super::program::{Given, Noise, Plan, Sizes, named, run};

/// Of what rounding in 32 bits does to a number: several times as much.
const SMALL: Noise = Noise::Each(1e-6);
/// Outputs that move by more of their largest value than so are not held: other programs add up in another order.
const MOVED_MAX: f64 = 2e-5;
/// Below so much a largest value is none.
const TOP_MIN: f64 = 1e-2;
/// Sizes of the two runs that are traced.
const TRACED: [Sizes; 2] = [Sizes { batch: 7, sequence: 13, past: 19 }, Sizes { batch: 11, sequence: 17, past: 23 }];

/// A program that is held.
pub(crate) struct Case {
    pub(crate) plan: Plan,
    pub(crate) graph: Graph,
    pub(crate) runs: Vec<Run>,
}

/// What goes in and what comes out.
pub(crate) struct Run {
    pub(crate) sizes: Sizes,
    pub(crate) inputs: Vec<Tensors>,
    pub(crate) outputs: Vec<Output>,
}

/// A tensor that comes out.
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// What became of a seed.
pub(crate) enum Drawn {
    Case(Box<Case>),
    /// The graph is none that an export could be of.
    Refused(String),
    /// Nothing of it can be held: all moves too much by too little.
    Sensitive,
}

/// The program of a seed.
pub(crate) fn draw(seed: u64) -> Result<Drawn, Failure> {
    let plan = Plan::new(seed);
    let mut runs = Vec::new();
    let mut kept: Option<Vec<String>> = None;
    for sizes in plan.sizes() {
        let outputs = compute(&plan, sizes, Noise::None)?;
        let moved = compute(&plan, sizes, SMALL)?;
        let is_held = |(own, moved): &(&Output, &Output)| {
            let is_still = relative(&own.values, &moved.values) <= MOVED_MAX;
            is_still && kept.as_ref().is_none_or(|kept| kept.contains(&own.name))
        };
        kept = Some(outputs.iter().zip(&moved).filter(is_held).map(|(own, _)| own.name.clone()).collect());
        runs.push(Run { sizes, inputs: inputs(&plan, sizes), outputs });
    }
    let names = kept.unwrap_or_default();
    if names.is_empty() {
        return Ok(Drawn::Sensitive);
    }
    for run in &mut runs {
        run.outputs.retain(|output| names.contains(&output.name));
    }
    let graph = match traced(&plan, &names) {
        Ok(graph) => graph,
        Err(failure) => return Ok(Drawn::Refused(failure.message)),
    };
    Ok(Drawn::Case(Box::new(Case { plan, graph, runs })))
}

fn traced(plan: &Plan, names: &[String]) -> Result<Graph, Failure> {
    let trace = |sizes: Sizes| -> Result<Vec<TraceTensor>, BackendError> {
        let floats = plan.inputs.iter().filter(|input| input.element == Element::Float);
        let floats = floats.map(|input| TraceTensor::input(&input.name, &sizes.shape(&input.shape))).collect();
        let texts = plan.has(IDS).then(|| Texts::unknown(sizes.batch, sizes.sequence, named()));
        let outputs = run(plan, &Given { sizes, texts, floats, noise: Noise::None })?;
        Ok(outputs.into_iter().filter(|(name, _)| names.contains(name)).map(|(_, tensor)| tensor).collect())
    };
    let runs = TRACED.map(trace);
    let [one, other] = runs;
    let (one, other) = (one?, other?);
    let size = |symbol: Symbol, of: fn(Sizes) -> usize| Size { symbol, runs: TRACED.map(of) };
    let sizes =
        [size(BATCH, |sizes| sizes.batch), size(SEQUENCE, |sizes| sizes.sequence), size(PAST, |sizes| sizes.past)];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut graph = Graph::of(plan.inputs.clone(), &names, [&one, &other], &sizes)?;
    graph.fold_scales();
    graph.fixed(&plan.fixed)
}

fn compute(plan: &Plan, sizes: Sizes, noise: Noise) -> Result<Vec<Output>, Failure> {
    let floats = plan.inputs.iter().filter(|input| input.element == Element::Float);
    let floats = floats.map(|input| CandleTensor::from_f32(&plan.floats(input, sizes), &sizes.shape(&input.shape)));
    let texts = plan.has(IDS).then(|| Texts::new(&plan.texts(sizes)));
    let given = Given { sizes, texts, floats: floats.collect::<Result<_, _>>()?, noise };
    let outputs = run(plan, &given)?.into_iter();
    let values = outputs.map(|(name, tensor)| Ok(Output { name, shape: tensor.shape(), values: tensor.to_f32()? }));
    values.collect()
}

fn inputs(plan: &Plan, sizes: Sizes) -> Vec<Tensors> {
    let texts = if plan.has(IDS) { plan.texts(sizes) } else { Vec::new() };
    let each = plan.inputs.iter().map(|input| {
        let shape = sizes.shape(&input.shape);
        let values = match input.element {
            Element::Float => Values::Floats(plan.floats(input, sizes)),
            Element::Integer if input.name == IDS => {
                Values::Integers(Texts::new(&texts).padded().into_iter().map(|id| id as i32).collect())
            }
            Element::Integer => {
                let before = shape[1] - sizes.sequence;
                let of_row = |row: &Vec<u32>| {
                    let length = before + row.len();
                    (0..shape[1]).map(move |at| i32::from(at < length)).collect::<Vec<i32>>()
                };
                Values::Integers(texts.iter().flat_map(of_row).collect())
            }
            Element::Bytes(_) => unreachable!("no plan has pictures in bytes"),
        };
        Tensors { name: input.name.clone(), shape, values }
    });
    each.collect()
}

/// How far two are from one another, of the largest value.
pub(crate) fn relative(own: &[f32], other: &[f32]) -> f64 {
    let top = own.iter().fold(TOP_MIN, |top, value| top.max(f64::from(value.abs())));
    let far = own.iter().zip(other).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    // What is no number is as far as can be.
    let far = far.fold(0.0f64, |most, far| if far.is_nan() { f64::INFINITY } else { most.max(far) });
    if top.is_finite() { far / top } else { f64::INFINITY }
}

impl Case {
    /// What a file of a precision may differ by: what is allowed of models, or what the program itself makes of errors of
    /// that size.
    pub(crate) fn allowed(&self, precision: Precision) -> Result<f64, Failure> {
        let usual = Allowed::of(precision).relative;
        let noise = match precision {
            Precision::F32 | Precision::Stored | Precision::SparseWeights | Precision::Bf16 => return Ok(usual),
            Precision::F16 => Noise::Each(1e-3),
            Precision::F16Weights => Noise::Weights(1e-3),
            Precision::Int8 | Precision::Int8Calibrated => Noise::Tensors(1.0 / 64.0),
            Precision::Int8Weights => Noise::Weights(1.0 / 128.0),
            Precision::Palette6Weights => Noise::Weights(1.0 / 16.0),
            Precision::Palette4Weights | Precision::Int4Weights => Noise::Weights(1.0 / 4.0),
        };
        let mut most = 0.0f64;
        for run in &self.runs {
            let moved = compute(&self.plan, run.sizes, noise)?;
            for own in &run.outputs {
                let moved = moved.iter().find(|output| output.name == own.name).expect("the same program");
                most = most.max(relative(&own.values, &moved.values));
            }
        }
        // One draw of what rounding may do.
        Ok(usual.max(8.0 * most))
    }

    /// Whether it has matrices in codes: those are written as they are stored.
    pub(crate) fn has_codes(&self) -> bool {
        self.graph.operations().iter().any(|op| op.ends_with("-quantized"))
    }

    /// The precision that a file is written in where another is asked for.
    pub(crate) fn precision(&self, asked: Precision) -> Precision {
        if self.has_codes() { Precision::Stored } else { asked }
    }

    /// How a file is written; calibrated by what the runs have.
    ///
    /// # Errors
    /// If the graph is refused where it would be run for that.
    pub(crate) fn options(&self, format: Format, asked: Precision) -> Result<Options, Failure> {
        let precision = self.precision(asked);
        let mut options = Options {
            format,
            precision,
            metadata: Vec::new(),
            longest: 64,
            weight_threshold: 255,
            ranges: Ranges::new(),
        };
        if precision == Precision::Int8Calibrated {
            let given: Vec<Vec<Tensors>> = self.runs.iter().map(|run| run.inputs.clone()).collect();
            options.ranges = ranges(&self.graph, &options, &given)?;
        }
        Ok(options)
    }

    /// Whether a run is one that a format has: some have no empty tensors.
    pub(crate) fn has_run(&self, run: &Run, format: Format) -> bool {
        run.sizes.past >= format.least_past()
    }

    /// Holds what was written against the program, by what runs it in this process.
    pub(crate) fn held(&self, written: &Written, format: Format, is_whole: bool) -> Result<f64, Failure> {
        let program = open(written, format, is_whole)?;
        let mut most = 0.0f64;
        for run in self.runs.iter().filter(|run| self.has_run(run, format)) {
            let asked: Vec<(&str, usize)> =
                run.outputs.iter().map(|output| (&output.name[..], output.shape.len())).collect();
            let found = program.run(&run.inputs, &asked)?;
            for (own, (shape, values)) in run.outputs.iter().zip(found) {
                if shape != own.shape {
                    let (name, own) = (&own.name, &own.shape);
                    return Err(Failure::target(format!("`{name}` comes as {shape:?}, and is {own:?}")));
                }
                most = most.max(relative(&own.values, &values));
            }
        }
        Ok(most)
    }
}
