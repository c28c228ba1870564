//! What is said of exports.

use effai::export::coreml::CoremlError;
use effai::export::onnx::OnnxError;
use effai::failure::Failure;

use super::Book;
use crate::exports::project;

pub(super) fn exports(book: &mut Book) {
    book.chapter("Exports");
    let mut with = |about: &str, export: &str| {
        let project = project(&format!("export \"x\" {{ {export}; }}"));
        project.effai(&["build", "m", "l"]);
        book.say(about, &project, &["build", "x"]);
    };
    with("a part that a model does not have", "from \"m\"; part \"picture\"; format \"onnx\"");
    with("an opset of before", "from \"m\"; format \"onnx\" opset=12");
    with("a tolerance of no check", "from \"m\"; format \"onnx\"; verify #false tolerance=0.1");
    with("codes of a model that has none", "from \"m\"; format \"onnx\" precision=\"stored\"");
    with("a precision of another format", "from \"m\"; format \"coreml\" precision=\"int8\"");
    with("a target of before", "from \"m\"; format \"coreml\" precision=\"int4-weights\" target=\"iOS16\"");
    with("a state of before", "from \"l\"; format \"coreml\" target=\"iOS17\" state=512");
    with("a state of another format", "from \"l\"; format \"onnx\" state=512");
    with("a state for what keeps nothing", "from \"m\"; format \"coreml\" state=512");
    with("a state that is longer than the model reads", "from \"l\"; format \"coreml\" state=100000");
    with("a state and a shape", "from \"l\"; format \"coreml\" state=8; shape sequence=1 past=4");
    with("a threshold of nothing", "from \"m\"; format \"onnx\" precision=\"f16\" weight-threshold=100");
    with("bytes of which nothing is known", "from \"m\"; format \"tflite\" precision=\"int8-calibrated\"");
    with("bytes of pictures for what reads", "from \"m\"; pixels \"uint8\"; format \"onnx\"");
    with("pictures at once, for Core ML", "from \"m\"; pixels \"uint8\"; format \"coreml\"; shape batch=4");
    with("one edge of pictures", "from \"m\"; pixels \"uint8\" height=480; format \"onnx\"");
    with(
        "edges of pictures that are prepared",
        "from \"m\"; pixels \"prepared\" height=480 width=640; format \"onnx\"",
    );
    with(
        "edges of pictures, and bytes by what was seen",
        "from \"m\"; pixels \"uint8\" height=48 width=64; format \"onnx\" precision=\"int8-calibrated\"; calibrate \"d\"",
    );
    let labels = |names: &str| format!("from \"c\"; part \"picture\"; labels {names} {{ prompt \"{{}}\"; }}");
    with("one label", &format!("{}; format \"onnx\"", labels("\"a\"")));
    with("a label twice", &format!("{}; format \"onnx\"", labels("\"A\" \"b\" \"a\"")));
    with("labels of weights alone", &format!("{}; format \"mlx\"", labels("\"a\" \"b\"")));
    with(
        "labels of pictures at once, for Core ML",
        &format!("{}; format \"coreml\"; shape batch=4", labels("\"a\" \"b\"")),
    );
    with("labels of what reads", "from \"m\"; labels \"a\" \"b\" { prompt \"{}\"; }; format \"onnx\"");
    with(
        "a prompt without a place for the label",
        "from \"c\"; part \"picture\"; labels \"a\" \"b\" { prompt \"a thing\"; }; format \"onnx\"",
    );
    with("an environment for what no package runs", "from \"m\"; format \"gguf\"; environment \"m\"");
    with("an opset of Core ML", "from \"m\"; format \"coreml\" opset=17");
    let told = [
        OnnxError::NoOperator {
            op: "patches",
            name: "patches".into(),
            why: "windows of pictures are written as a convolution, and what follows is none",
        },
        OnnxError::RoundsInputs("model.layers.0.mlp.up_proj".into()),
        OnnxError::NoSize("past"),
        OnnxError::TooLarge { name: "model.norm.weight".into(), value: 1e6 },
    ];
    for (about, error) in
        ["an operation alone", "inputs that are rounded", "a size from nowhere", "a weight beyond 16 bits"]
            .into_iter()
            .zip(told)
    {
        let Failure { message, help, .. } = error.into();
        book.shown(about, &format!("error: {message}\n  help: {}\n", help.unwrap_or_default()));
    }
    let told = [
        CoremlError::NoOperator {
            op: "patches",
            name: "patches".into(),
            why: "windows of pictures are written as a convolution, and what follows is none",
        },
        CoremlError::RoundsInputs("model.layers.0.mlp.up_proj".into()),
    ];
    for (about, error) in
        ["an operation alone, for Core ML", "inputs that are rounded, for Core ML"].into_iter().zip(told)
    {
        let Failure { message, help, .. } = error.into();
        book.shown(about, &format!("error: {message}\n  help: {}\n", help.unwrap_or_default()));
    }
}
