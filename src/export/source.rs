//! What of a model is exported: the inputs and outputs that its part has in the world, and the model's own run of them.

use crate::backend::pixels;
use crate::backend::texts::Named;
use crate::backend::trace::TraceTensor;
use crate::backend::{Precision, Tensor, Texts};
use crate::failure::Failure;
use crate::format::image::{self, Pass, Preprocessing};
use crate::model::llama::{self, Cache};
use crate::model::{Checkpoint, Config, Model};

use super::format::Layout;
use super::graph::{Colours, Dim, Element, Graph, Input, Kept, Size, State, Symbol, order};
use super::labels::{Labels, PROBABILITIES};

/// The input of token ids, as Hugging Face's libraries name it.
pub const IDS: &str = "input_ids";
/// The input that says which tokens are no padding.
pub const MASK: &str = "attention_mask";
/// The input of pictures.
pub const PIXELS: &str = "pixel_values";

/// Names of a file that keeps keys and values itself, those of Apple's own conversion of Llama 3.1: the token ids.
const IDS_OF_STATE: &str = "inputIds";
/// What is added to the scores of attention: 0 where a token sees another, minus infinity where it does not.
const SCORES: &str = "causalMask";
/// The tensors that are kept.
const KEPT: [&str; 2] = ["keyCache", "valueCache"];

/// How many texts or pictures there are.
pub const BATCH: Symbol = "batch";
/// How many tokens each text has.
pub const SEQUENCE: Symbol = "sequence";
/// How many tokens a language model has read before.
pub const PAST: Symbol = "past";

/// Sizes of the two runs: primes that all differ, as many tokens as a model of few positions reads.
const OF_BATCH: [usize; 2] = [7, 11];
const OF_PAST: [usize; 2] = [19, 23];
const OF_SEQUENCE: [[usize; 2]; 3] = [[13, 17], [3, 5], [2, 3]];

/// A part of a model that is a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What reads texts and gives vectors.
    Text,
    /// What sees pictures and gives vectors.
    Picture,
    /// A language model.
    Language,
}

impl Part {
    /// The parts that a model has.
    pub fn of(config: &Config) -> &'static [Part] {
        match config {
            Config::Bert(_) => &[Part::Text],
            Config::EfficientnetLite { .. } => &[Part::Picture],
            Config::Clip(_) | Config::DualEncoder { .. } => &[Part::Text, Part::Picture],
            Config::Llama(_) => &[Part::Language],
        }
    }

    /// The one of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Part::Text, Part::Picture, Part::Language].into_iter().find(|part| part.name() == name)
    }

    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Part::Text => "text",
            Part::Picture => "picture",
            Part::Language => "language",
        }
    }
}

/// As what a file is given pictures of the model's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pixels {
    /// Floats, as `config.json` or `preprocessor_config.json` says.
    #[default]
    Prepared,
    /// Bytes of red, green and blue, which the file itself makes floats.
    Uint8,
}

impl Pixels {
    /// Every name in recipes.
    pub const NAMES: &[&str] = &["prepared", "uint8"];

    /// The one of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "prepared" => Some(Self::Prepared),
            "uint8" => Some(Self::Uint8),
            _ => None,
        }
    }

    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepared => Self::NAMES[0],
            Self::Uint8 => Self::NAMES[1],
        }
    }
}

/// A model's part, ready to be traced.
pub struct Source {
    model: Model<TraceTensor>,
    part: Part,
    /// How its pictures are prepared; none where it sees none.
    preprocessing: Option<Preprocessing>,
    pixels: Pixels,
    /// Height and width of the pictures that its file is given, where they are not the model's, and how they become so.
    given: Option<([usize; 2], [Pass; 2])>,
    layout: Layout,
    least_past: usize,
    /// Of what it is given one number only.
    sizes: Vec<(Symbol, usize)>,
    /// Tokens of the one text whose keys and values the file keeps itself.
    context: Option<usize>,
    /// What it gives probabilities of in place of vectors.
    labels: Option<Labels>,
}

/// What a part is given in a check.
#[derive(Clone, Debug)]
pub enum Given {
    /// Token ids; of a language model all of one length, and how many of the first tokens were read before.
    Texts(Vec<Vec<u32>>, usize),
    /// Prepared pictures, NHWC one after the other.
    Pictures(Vec<f32>, usize),
    /// Pictures that the file prepares itself, likewise.
    Bytes(Vec<u8>, usize),
}

/// An input as another program is given it.
#[derive(Clone, Debug)]
pub struct Tensors {
    /// Its name.
    pub name: String,
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Values,
}

/// Values of an input.
#[derive(Clone, Debug)]
pub enum Values {
    /// Of pictures and of caches.
    Floats(Vec<f32>),
    /// Of token ids and masks.
    Integers(Vec<i32>),
    /// Of pictures that are prepared by who is given them.
    Bytes(Vec<u8>),
}

/// One run of the model itself.
pub struct Run {
    /// What another program is to be given.
    pub inputs: Vec<Tensors>,
    /// All operations in the graph's order, with their values.
    pub nodes: Vec<TraceTensor>,
    /// What comes out.
    pub outputs: Vec<TraceTensor>,
    /// Masked positions before all others in the caches that go in and come out of the other program: the model has none.
    pub masked: usize,
}

fn dim(symbol: Symbol) -> Dim {
    Dim::Product(1, vec![symbol])
}

impl Source {
    /// Of a model, whose arrays are emptied on the way; pictures go in as `layout` says.
    pub fn new(checkpoint: &mut Checkpoint, part: Part, layout: Layout) -> Result<Self, Failure> {
        let model = Model::take(checkpoint, Precision::F32)?;
        let preprocessing = model.preprocessing();
        let (pixels, sizes) = (Pixels::Prepared, Vec::new());
        Ok(Self {
            model,
            part,
            preprocessing,
            pixels,
            given: None,
            layout,
            least_past: 0,
            sizes,
            context: None,
            labels: None,
        })
    }

    /// The same that is given pictures as they are said to be.
    ///
    /// # Errors
    /// If the part sees none.
    pub fn with_pixels(self, pixels: Pixels) -> Result<Self, Failure> {
        if self.part != Part::Picture {
            return Err(Failure::user("`pixels` is for what sees pictures, and this part reads texts")
                .help("leave it out, or write part \"picture\""));
        }
        Ok(Self { pixels, ..self })
    }

    /// The same for a file that is given pictures as bytes of this height and width, which it brings to the model's itself.
    ///
    /// # Errors
    /// If the part sees none.
    pub fn with_height_and_width(self, given: [usize; 2]) -> Result<Self, Failure> {
        let seeing = self.with_pixels(Pixels::Uint8)?;
        let passes = seeing.preprocessing.map(|own| own.passes(given)).transpose()?.flatten();
        Ok(Self { given: passes.map(|passes| (given, passes)), ..seeing })
    }

    /// The same for a format whose caches hold so many positions at least.
    #[must_use]
    pub fn with_least_past(self, least_past: usize) -> Self {
        Self { least_past, ..self }
    }

    /// The same for a file that keeps keys and values itself, of one text of so many tokens.
    ///
    /// # Errors
    /// If the part is no language model, or reads fewer tokens.
    pub fn with_state(mut self, context: usize) -> Result<Self, Failure> {
        if self.part != Part::Language {
            let does = if self.part == Part::Picture { "sees pictures" } else { "reads whole texts" };
            return Err(
                Failure::user(format!("`state` is for language models, and this part {does}")).help("leave it out")
            );
        }
        let most = self.reads().0;
        if context > most {
            return Err(Failure::user(format!("`state` has {context} tokens, and the model reads {most} at most"))
                .help("write a smaller number"));
        }
        (self.context, self.least_past) = (Some(context), 0);
        self.sizes.push((BATCH, 1));
        Ok(self)
    }

    /// The same that gives probabilities of labels, each of which is what the model makes of prompts with its name.
    ///
    /// # Errors
    /// If the part sees no pictures, or the model tells none apart by texts.
    pub fn with_labels(self, names: &[String], prompts: &[String]) -> Result<Self, Failure> {
        if self.part != Part::Picture {
            return Err(Failure::user("`labels` are for what sees pictures, and this part reads texts")
                .help("leave them out, or write part \"picture\""));
        }
        let labels = Some(Labels::new(&self.model, self.texts_named(), names, prompts)?);
        Ok(Self { labels, ..self })
    }

    /// The same for one number of some things only, by their names.
    pub fn fixed(mut self, sizes: &[(&str, usize)]) -> Result<Self, Failure> {
        let known: &[Symbol] = match self.part {
            Part::Picture => &[BATCH],
            Part::Text => &[BATCH, SEQUENCE],
            Part::Language => &[BATCH, SEQUENCE, PAST],
        };
        for (name, number) in sizes {
            let Some(symbol) = known.iter().find(|symbol| *symbol == name) else {
                let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
                return Err(Failure::user(format!("what the model is given has no `{name}`"))
                    .help(format!("`shape` can say {}", names.join(", "))));
            };
            self.sizes.push((symbol, *number));
        }
        if self.size(PAST).is_some_and(|past| past < self.least_past) {
            return Err(Failure::user("`shape` has no `past`, and caches of this format hold one token at least")
                .help("write a larger number, or leave `past` out"));
        }
        let (most, tokens) = (self.reads().0, self.size(SEQUENCE).unwrap_or(0) + self.size(PAST).unwrap_or(0));
        if tokens > most && self.part != Part::Picture {
            return Err(Failure::user(format!("`shape` has {tokens} tokens, and the model reads {most} at most"))
                .help("write a smaller number"));
        }
        Ok(self)
    }

    /// The one number of something, where there is only one.
    pub fn size(&self, symbol: &str) -> Option<usize> {
        self.sizes.iter().find(|(own, _)| *own == symbol).map(|(_, number)| *number)
    }

    /// The part.
    pub fn part(&self) -> Part {
        self.part
    }

    /// Height and width of the pictures that its file is given; 0 where it sees none.
    pub fn height_and_width(&self) -> [usize; 2] {
        let side = self.preprocessing.map_or(0, |own| own.size);
        self.given.as_ref().map_or([side; 2], |(given, _)| *given)
    }

    /// Whether its file brings pictures to the model's size itself.
    pub fn has_passes(&self) -> bool {
        self.given.is_some()
    }

    /// How its pictures are prepared; none where it sees none.
    pub fn preprocessing(&self) -> Option<Preprocessing> {
        self.preprocessing
    }

    /// As what it is given pictures.
    pub fn pixels(&self) -> Pixels {
        self.pixels
    }

    /// What it gives probabilities of, in their order; none where it gives something else.
    pub fn labels(&self) -> &[String] {
        self.labels.as_ref().map_or(&[], Labels::names)
    }

    /// What cosines of labels are multiplied by before they become probabilities; none where there are no labels.
    pub fn scale_of_labels(&self) -> Option<f64> {
        self.labels.as_ref().map(Labels::scale)
    }

    /// Whether its file keeps keys and values itself.
    pub fn has_state(&self) -> bool {
        self.context.is_some()
    }

    fn texts_named(&self) -> Named {
        let (ids, mask) = if self.has_state() { (IDS_OF_STATE, SCORES) } else { (IDS, MASK) };
        Named { ids: ids.into(), mask: mask.into() }
    }

    /// Tokens that it reads at most, and that it knows.
    pub fn reads(&self) -> (usize, usize) {
        let (most, known) = self.model_reads();
        (self.context.unwrap_or(most), known)
    }

    fn model_reads(&self) -> (usize, usize) {
        match &self.model.config {
            Config::Bert(text) | Config::DualEncoder { text, .. } => (text.max_position_embeddings, text.vocab_size),
            Config::Clip(config) => (config.text_config.max_position_embeddings, config.text_config.vocab_size),
            Config::Llama(config) => (config.max_position_embeddings, config.vocab_size),
            Config::EfficientnetLite { .. } => (0, 0),
        }
    }

    /// The token that has to end each text, where the model looks for one.
    pub fn ends_with(&self) -> Option<u32> {
        match &self.model.config {
            Config::Clip(config) => Some(config.text_config.end()),
            _ => None,
        }
    }

    /// The names of what comes out.
    pub fn outputs(&self) -> Vec<String> {
        match (self.part, &self.model.config) {
            (Part::Language, _) if self.has_state() => vec!["logits".into()],
            (Part::Language, Config::Llama(config)) => language_outputs(config),
            _ if self.labels.is_some() => vec![PROBABILITIES.into()],
            (part, config) => vec![vectors_output(part, config).to_owned()],
        }
    }

    /// The graph of any number of texts or pictures, but for what has one number only.
    pub fn graph(&self) -> Result<Graph, Failure> {
        // However short a state is: of few tokens no model is traced.
        let most = self.model_reads().0;
        let sequence = match self.part {
            Part::Picture => OF_SEQUENCE[0],
            _ => {
                let room = if self.part == Part::Language { most.saturating_sub(OF_PAST[1]) } else { most };
                *OF_SEQUENCE.iter().find(|sizes| sizes[1] <= room).ok_or_else(|| {
                    Failure::target(format!("the model reads {most} tokens at most, too few to be traced"))
                        .help("export a model that reads more")
                })?
            }
        };
        let runs = [0, 1].map(|run| self.unknown(OF_BATCH[run], sequence[run], OF_PAST[run]));
        let [one, other] = runs;
        let (one, other) = (one?, other?);
        let names = self.outputs();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sizes = [
            Size { symbol: BATCH, runs: OF_BATCH },
            Size { symbol: SEQUENCE, runs: sequence },
            Size { symbol: PAST, runs: OF_PAST },
        ];
        let mut graph = Graph::of(self.inputs(), &names, [&one, &other], &sizes)?;
        graph.fold_scales();
        graph.state = self.state();
        graph.resize = self.given.as_ref().map(|(_, passes)| passes.clone());
        graph.labels = self.labels().to_vec();
        graph.fixed(&self.sizes)
    }

    /// What its file keeps itself.
    pub fn state(&self) -> Option<State> {
        let (Some(context), Config::Llama(config)) = (self.context, &self.model.config) else { return None };
        let shape = [config.num_hidden_layers, 1, config.kv_heads(), context, config.head_width()];
        let names = past_names(config);
        let kept = KEPT.iter().enumerate().map(|(at, name)| {
            let caches = names.iter().skip(at).step_by(KEPT.len()).cloned().collect();
            Kept { name: (*name).to_owned(), shape: shape.into(), caches }
        });
        Some(State { scores: SCORES.into(), kept: kept.collect() })
    }

    fn inputs(&self) -> Vec<Input> {
        let integer = |name: &str, shape| Input { name: name.into(), element: Element::Integer, shape };
        let float = |name: String, shape| Input { name, element: Element::Float, shape };
        match (self.part, &self.model.config) {
            (Part::Picture, _) => {
                let [_, lengths @ ..] = self.given_pictures(1).map(Dim::Fixed);
                let shape = [dim(BATCH)].into_iter().chain(lengths).collect();
                let element = match (self.pixels, self.preprocessing) {
                    (Pixels::Uint8, Some(preprocessing)) => Element::Bytes(colours(&preprocessing)),
                    _ => Element::Float,
                };
                vec![Input { name: PIXELS.into(), element, shape }]
            }
            (Part::Text, _) => {
                let shape = vec![dim(BATCH), dim(SEQUENCE)];
                vec![integer(IDS, shape.clone()), integer(MASK, shape)]
            }
            (Part::Language, config) => {
                let seen = Dim::Sum(vec![SEQUENCE, PAST]);
                if self.has_state() {
                    let shape = vec![dim(BATCH), Dim::Fixed(1), dim(SEQUENCE), seen];
                    return vec![integer(IDS_OF_STATE, vec![dim(BATCH), dim(SEQUENCE)]), float(SCORES.into(), shape)];
                }
                let mut all =
                    vec![integer(IDS, vec![dim(BATCH), dim(SEQUENCE)]), integer(MASK, vec![dim(BATCH), seen])];
                let Config::Llama(config) = config else { unreachable!("a language model is a Llama") };
                let shape = vec![dim(BATCH), Dim::Fixed(config.kv_heads()), dim(PAST), Dim::Fixed(config.head_width())];
                all.extend(past_names(config).into_iter().map(|name| float(name, shape.clone())));
                all
            }
        }
    }

    /// A run of which only the shapes are known.
    fn unknown(&self, batch: usize, sequence: usize, past: usize) -> Result<Vec<TraceTensor>, Failure> {
        match (self.part, &self.model.config) {
            (Part::Picture, _) => self.see(&TraceTensor::input(PIXELS, &self.pictures(batch))),
            (Part::Language, Config::Llama(config)) => {
                let shape = [batch, config.kv_heads(), past, config.head_width()];
                let caches = past_names(config).iter().map(|name| TraceTensor::input(name, &shape)).collect();
                self.go_on(config, &Texts::unknown(batch, sequence, self.texts_named()), caches, past)
            }
            _ => Ok(vec![self.model.text_batch(&Texts::unknown(batch, sequence, self.texts_named()), None)?]),
        }
    }

    /// Pictures as another program is given them.
    ///
    /// # Panics
    /// Of texts.
    pub fn seen(&self, given: &Given) -> Tensors {
        let (values, count) = match given {
            Given::Pictures(values, count) => (Values::Floats(self.laid(values, *count)), *count),
            Given::Bytes(bytes, count) => (Values::Bytes(self.laid(bytes, *count)), *count),
            Given::Texts(..) => unreachable!("texts are no pictures"),
        };
        Tensors { name: PIXELS.into(), shape: self.given_pictures(count).into(), values }
    }

    /// A run of what is given.
    pub fn run(&self, given: &Given) -> Result<Run, Failure> {
        let mut masked = 0;
        let (inputs, outputs) = match (given, &self.model.config) {
            (Given::Pictures(values, count), _) => {
                let shape = self.pictures(*count);
                let pictures = TraceTensor::given(PIXELS, &self.laid(values, *count), &shape)?;
                (vec![self.seen(given)], self.see(&pictures)?)
            }
            (Given::Bytes(bytes, count), _) => {
                let shape = self.pictures(*count);
                let preprocessing = self.preprocessing.expect("what sees pictures says how they are prepared");
                // As the model's own code has it, and not as the file does.
                let (mean, std) = (preprocessing.mean.each(), preprocessing.std.each());
                let prepared = match self.given {
                    Some((given, _)) => image::prepared(bytes, given, &preprocessing)?,
                    None => pixels::normalise(&pixels::floats(bytes), mean, std),
                };
                let pictures = TraceTensor::given(PIXELS, &self.laid(&prepared, *count), &shape)?;
                (vec![self.seen(given)], self.see(&pictures)?)
            }
            (Given::Texts(rows, before), Config::Llama(config)) => {
                let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
                if let Some(context) = self.context.filter(|context| longest > *context) {
                    return Err(Failure::user(format!("a text has {longest} tokens, and `state` holds {context}"))
                        .help("write a larger number, or a shorter `text`"));
                }
                let head: Vec<Vec<u32>> = rows.iter().map(|row| row[..*before].to_vec()).collect();
                let rest: Vec<Vec<u32>> = rows.iter().map(|row| row[*before..].to_vec()).collect();
                let mut cache = Cache::default();
                let shape = [rows.len(), config.kv_heads(), *before, config.head_width()];
                if *before > 0 {
                    llama::encode(&self.model.weights, config, &Texts::new(&head), &mut cache)?;
                }
                masked = self.least_past.saturating_sub(*before);
                let mut inputs = match self.context {
                    Some(_) => of_state(&rest[0], *before),
                    None => of_texts(&rest, *before, masked),
                };
                let mut caches = Vec::new();
                let mut own = shape;
                own[2] += masked;
                let kept = cache.into_layers().into_iter().flat_map(|(keys, values)| [keys, values]);
                let kept = kept.map(|tensor| tensor.to_f32()).collect::<crate::backend::Result<Vec<_>>>()?;
                for (at, name) in past_names(config).into_iter().enumerate() {
                    let values = kept.get(at).cloned().unwrap_or_default();
                    caches.push(TraceTensor::given(&name, &values, &shape)?);
                    // What is masked comes first, in a cache that is empty else.
                    let values = if masked > 0 { vec![0.0; own.iter().product()] } else { values };
                    if !self.has_state() {
                        inputs.push(Tensors { name, shape: own.into(), values: Values::Floats(values) });
                    }
                }
                (inputs, self.go_on(config, &Texts::given(&rest, self.texts_named()), caches, *before + masked)?)
            }
            (Given::Texts(rows, _), _) => {
                let texts = Texts::given(rows, self.texts_named());
                (of_texts(rows, 0, 0), vec![self.model.text_batch(&texts, None)?])
            }
        };
        Ok(Run { inputs, nodes: order(&outputs), outputs, masked })
    }

    /// What comes out of inputs as another program is given them.
    pub fn run_of(&self, inputs: &[Tensors]) -> Result<Vec<TraceTensor>, Failure> {
        let input =
            |name: &str| inputs.iter().find(|input| input.name == name).expect("each input of the part is given");
        let floats = |input: &Tensors| match &input.values {
            Values::Floats(values) => TraceTensor::given(&input.name, values, &input.shape),
            Values::Integers(_) | Values::Bytes(_) => unreachable!("pictures and caches are floats"),
        };
        if self.part == Part::Picture {
            return self.see(&floats(input(PIXELS))?);
        }
        let texts = Texts::given(&rows(input(IDS), input(MASK)), self.texts_named());
        let Config::Llama(config) = &self.model.config else { return Ok(vec![self.model.text_batch(&texts, None)?]) };
        let caches =
            past_names(config).iter().map(|name| floats(input(name))).collect::<crate::backend::Result<_>>()?;
        let past = input(MASK).shape[1] - input(IDS).shape[1];
        self.go_on(config, &texts, caches, past)
    }

    /// Another part of the same model.
    #[must_use]
    pub fn of_part(mut self, part: Part) -> Self {
        self.part = part;
        self
    }

    /// Pictures, as they are given.
    fn see(&self, pictures: &TraceTensor) -> Result<Vec<TraceTensor>, Failure> {
        let vectors = match self.layout {
            Layout::ChannelsFirst => self.model.picture_batch(&pictures.swap_axes(1, 2)?.swap_axes(2, 3)?)?,
            Layout::ChannelsLast => self.model.picture_batch(pictures)?,
        };
        Ok(vec![match &self.labels {
            Some(labels) => labels.probabilities(&vectors)?,
            None => vectors,
        }])
    }

    /// Pictures in NHWC as they are given.
    fn laid<V: Copy>(&self, values: &[V], count: usize) -> Vec<V> {
        self.layout.laid(values, count, values.len() / 3 / count.max(1))
    }

    /// The shape of so many pictures as the file is given them.
    pub fn given_pictures(&self, count: usize) -> [usize; 4] {
        self.layout.shape(count, self.height_and_width())
    }

    /// The shape of so many as the model sees them.
    fn pictures(&self, count: usize) -> [usize; 4] {
        self.layout.shape(count, [self.preprocessing.map_or(0, |own| own.size); 2])
    }

    /// The logits of texts that come after what the caches hold, and the caches after them.
    fn go_on(
        &self,
        config: &llama::Config,
        texts: &Texts,
        caches: Vec<TraceTensor>,
        past: usize,
    ) -> Result<Vec<TraceTensor>, Failure> {
        let layers = caches.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let mut cache = Cache::new(layers, past);
        let x = llama::encode(&self.model.weights, config, texts, &mut cache)?;
        let logits = self.model.weights.linear(llama::head(config), &x)?;
        if self.has_state() {
            return Ok(vec![logits]);
        }
        let after = cache.into_layers().into_iter().flat_map(|(keys, values)| [keys, values]);
        Ok([logits].into_iter().chain(after).collect())
    }
}

/// The name of the vectors that come out.
pub(super) fn vectors_output(part: Part, config: &Config) -> &'static str {
    match (part, config) {
        (Part::Text, Config::Bert(_)) => "sentence_embedding",
        (Part::Text, _) => "text_embeds",
        (Part::Picture, Config::EfficientnetLite { .. }) => "pooler_output",
        (Part::Picture, _) => "image_embeds",
        (Part::Language, _) => unreachable!("a language model gives logits"),
    }
}

/// What comes out of a language model.
pub(super) fn language_outputs(config: &llama::Config) -> Vec<String> {
    let of = |layer| ["key", "value"].map(|what| format!("present.{layer}.{what}"));
    ["logits".to_owned()].into_iter().chain((0..config.num_hidden_layers).flat_map(of)).collect()
}

/// The caches that go into it, in the order in which they come out.
pub(super) fn past_names(config: &llama::Config) -> Vec<String> {
    let of = |layer| ["key", "value"].map(|what| format!("past_key_values.{layer}.{what}"));
    (0..config.num_hidden_layers).flat_map(of).collect()
}

/// Token ids, and the mask of them, of what was read before, and of positions that are masked.
fn of_texts(rows: &[Vec<u32>], before: usize, masked: usize) -> Vec<Tensors> {
    let texts = Texts::new(rows);
    let (count, longest) = (texts.count(), texts.longest());
    let ids = texts.padded().into_iter().map(|id| id as i32).collect();
    let before = masked + before;
    let seen = |row: &Vec<u32>, at: usize| (masked..before + row.len()).contains(&at);
    let mask = rows.iter().flat_map(|row| (0..before + longest).map(|at| i32::from(seen(row, at)))).collect();
    vec![
        Tensors { name: IDS.into(), shape: vec![count, longest], values: Values::Integers(ids) },
        Tensors { name: MASK.into(), shape: vec![count, before + longest], values: Values::Integers(mask) },
    ]
}

/// Token ids of one text, and which of the tokens before them and of themselves each sees.
fn of_state(row: &[u32], before: usize) -> Vec<Tensors> {
    let (count, all) = (row.len(), before + row.len());
    let ids = row.iter().map(|id| *id as i32).collect();
    let score = |query: usize, key: usize| if key <= before + query { 0.0 } else { f32::NEG_INFINITY };
    let scores = (0..count).flat_map(|query| (0..all).map(move |key| score(query, key))).collect();
    vec![
        Tensors { name: IDS_OF_STATE.into(), shape: vec![1, count], values: Values::Integers(ids) },
        Tensors { name: SCORES.into(), shape: vec![1, 1, count, all], values: Values::Floats(scores) },
    ]
}

/// The reverse: the tokens of each text, without its padding.
fn rows(ids: &Tensors, mask: &Tensors) -> Vec<Vec<u32>> {
    let (Values::Integers(of_ids), Values::Integers(of_mask)) = (&ids.values, &mask.values) else {
        unreachable!("ids and masks are integers")
    };
    let (longest, seen) = (ids.shape[1], mask.shape[1]);
    let masks = of_mask.chunks_exact(seen).map(|row| &row[seen - longest..]);
    let kept = |(ids, mask): (&[i32], &[i32])| {
        ids.iter().zip(mask).filter(|(_, keep)| **keep == 1).map(|(id, _)| *id as u32).collect()
    };
    of_ids.chunks_exact(longest).zip(masks).map(kept).collect()
}

/// `(byte - mean) / std` as a scale and a shift.
fn colours(preprocessing: &Preprocessing) -> Colours {
    let (mean, std) = (preprocessing.mean.each().map(f64::from), preprocessing.std.each().map(f64::from));
    let of = |made: &dyn Fn(usize) -> f64| [0, 1, 2].map(|colour| made(colour) as f32);
    Colours { scale: of(&|colour| 1.0 / std[colour]), shift: of(&|colour| -mean[colour] / std[colour]) }
}

/// NHWC as NCHW.
pub(super) fn channels_first<V: Copy>(values: &[V], count: usize, area: usize) -> Vec<V> {
    let mut out = Vec::with_capacity(values.len());
    for picture in values.chunks_exact((area * 3).max(1)).take(count) {
        for colour in 0..3 {
            out.extend(picture.iter().skip(colour).step_by(3));
        }
    }
    out
}
