//! The recurrent generators: the paper's network and the LSTMs of NeuralTalk.

use std::sync::Arc;

use super::generator::{Generator, Pictures, State, Step};
use crate::matrix::Matrix;
use crate::tape::{Activation, Output, Squash, Tape, Var};

/// The multimodal recurrent network of the paper (equations 13 to 15).
#[derive(Debug, Clone)]
pub(super) struct Rnn {
    /// Whether the picture enters at every step instead of the first only.
    pub(super) every_step: bool,
}

const OUTPUT: Output<'static> = Output { matrix: "output.weight", bias: "output.bias" };

/// `W_hi` of the first vectors: `[pictures, hidden]` (equation 13).
fn encode(tape: &mut Tape<'_>, pictures: &Pictures) -> Var {
    let first = Matrix::new(pictures.len(), pictures.dim(), pictures.first_vectors());
    let first = tape.constant(first);
    let first = tape.dropout(first);
    tape.linear(first, "image")
}

fn first_state(rows: Vec<Var>, pictures: usize) -> State {
    State { rows, shared: Vec::new(), pictures: (0..pictures).collect(), regions: Arc::new([]), step: 0 }
}

impl Generator for Rnn {
    fn start(&self, tape: &mut Tape<'_>, pictures: &Pictures) -> State {
        let image = encode(tape, pictures);
        first_state(vec![image], pictures.len())
    }

    /// The state's rows are `b_v` until it is used for the last time, and `h` from the first step on.
    fn step(&self, tape: &mut Tape<'_>, state: &State, tokens: &[u32]) -> (State, Step) {
        let x = tape.embed("word_vectors", tokens, 1.0);
        let x = tape.dropout(x);
        let mut z = tape.linear(x, "input");
        if self.every_step || state.step == 0 {
            z = tape.add(z, state.rows[0]);
        }
        if state.step > 0 {
            let past = tape.linear(*state.rows.last().expect("h after the first step"), "recurrence");
            z = tape.add(z, past);
        }
        let h = tape.activate(z, Activation::Relu); // equation 14
        let rows = if self.every_step { vec![state.rows[0], h] } else { vec![h] };
        let hidden = tape.dropout(h);
        (State { rows, step: state.step + 1, ..state.clone() }, Step { hidden, attention: Vec::new() })
    }

    fn output(&self) -> Output<'_> {
        OUTPUT
    }
}

/// An LSTM that reads the picture as if it were a word before START; what it would say after the picture is not asked.
#[derive(Debug, Clone)]
pub(super) struct Lstm {
    /// Length of its state.
    pub(super) hidden: usize,
    /// What it shows of its cell.
    pub(super) squash: Squash,
    /// Whether the picture goes through a ReLU first.
    pub(super) rectifies: bool,
}

impl Lstm {
    fn advance(&self, tape: &mut Tape<'_>, state: &State, x: Var) -> State {
        let [h, c] = [state.rows[0], state.rows[1]];
        let x = tape.linear(x, "input");
        let past = tape.linear(h, "recurrence");
        let z = tape.add(x, past);
        let (h, c) = tape.lstm_cell(z, c, self.squash);
        State { rows: vec![h, c], step: state.step + 1, ..state.clone() }
    }
}

impl Generator for Lstm {
    fn start(&self, tape: &mut Tape<'_>, pictures: &Pictures) -> State {
        let mut image = encode(tape, pictures);
        if self.rectifies {
            image = tape.activate(image, Activation::Relu);
        }
        let zeros = tape.constant(Matrix::zeros(pictures.len(), self.hidden));
        let state = first_state(vec![zeros, zeros], pictures.len());
        State { step: 0, ..self.advance(tape, &state, image) }
    }

    fn step(&self, tape: &mut Tape<'_>, state: &State, tokens: &[u32]) -> (State, Step) {
        let x = tape.embed("word_vectors", tokens, 1.0);
        let x = tape.dropout(x);
        let state = self.advance(tape, state, x);
        let hidden = tape.dropout(state.rows[0]);
        (state, Step { hidden, attention: Vec::new() })
    }

    fn output(&self) -> Output<'_> {
        OUTPUT
    }
}
