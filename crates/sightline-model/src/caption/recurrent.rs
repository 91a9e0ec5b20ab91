//! The recurrent generators: the paper's network and the LSTMs of NeuralTalk.

use std::sync::Arc;

use super::generator::{Generator, Pictures, State, Step};
use crate::matrix::Matrix;
use crate::tape::{Activation, Output, Squash, Tape, Var};

/// A network that goes through a sentence word by word.
pub(super) trait Recurrent: Sync + Send + std::fmt::Debug {
    /// [`Generator::start`].
    fn start(&self, tape: &mut Tape<'_>, pictures: &Pictures) -> State;

    /// The next state and its `[sentences, hidden]`, from what [`words`] makes of the next words.
    fn advance(&self, tape: &mut Tape<'_>, state: &State, words: Var) -> (State, Var);
}

/// Words on their way into the state: they depend on nothing before them, so those of many steps are one product.
fn words(tape: &mut Tape<'_>, tokens: &[u32]) -> Var {
    let x = tape.embed("word_vectors", tokens, 1.0);
    let x = tape.dropout(x);
    tape.linear(x, "input")
}

impl<T: Recurrent> Generator for T {
    fn start(&self, tape: &mut Tape<'_>, pictures: &Pictures) -> State {
        Recurrent::start(self, tape, pictures)
    }

    fn step(&self, tape: &mut Tape<'_>, state: &State, tokens: &[u32]) -> (State, Step) {
        let words = words(tape, tokens);
        let (state, hidden) = self.advance(tape, state, words);
        let hidden = tape.dropout(hidden);
        (state, Step { hidden, attention: Vec::new() })
    }

    /// Sentences of different lengths, the longest first, so that no padding is computed.
    fn read(&self, tape: &mut Tape<'_>, state: &State, sentences: &[&[u32]]) -> Var {
        let mut order: Vec<usize> = (0..sentences.len()).collect();
        order.sort_by_key(|&s| std::cmp::Reverse(sentences[s].len()));
        let longest = order.first().map_or(0, |&s| sentences[s].len());
        // The tokens of all steps, one step after the other; where those of each step and of each sentence lie.
        let (mut tokens, mut steps) = (Vec::new(), Vec::new());
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); sentences.len()];
        for t in 0..=longest {
            let first = tokens.len();
            for &s in order.iter().take_while(|&&s| sentences[s].len() >= t) {
                places[s].push(tokens.len());
                tokens.push(if t == 0 { super::END } else { sentences[s][t - 1] });
            }
            steps.push(first..tokens.len());
        }
        let words = words(tape, &tokens);
        let mut state = state.select(tape, &order);
        let mut hidden = Vec::new();
        for rows in steps {
            state.rows = state.rows.iter().map(|&var| tape.first_rows(var, rows.len())).collect();
            state.pictures.truncate(rows.len());
            let own = tape.row_range(words, rows);
            let (next, h) = self.advance(tape, &state, own);
            hidden.push(h);
            state = next;
        }
        let stacked = tape.stack(&hidden);
        let hidden = tape.rows(stacked, &places.concat());
        tape.dropout(hidden)
    }

    fn output(&self) -> Output<'_> {
        Output { matrix: "output.weight", bias: "output.bias" }
    }
}

/// The multimodal recurrent network of the paper (equations 13 to 15).
#[derive(Debug, Clone)]
pub(super) struct Rnn {
    /// Whether the picture enters at every step instead of the first only.
    pub(super) every_step: bool,
}

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

impl Recurrent for Rnn {
    fn start(&self, tape: &mut Tape<'_>, pictures: &Pictures) -> State {
        let image = encode(tape, pictures);
        first_state(vec![image], pictures.len())
    }

    /// The state's rows are `b_v` until it is used for the last time, and `h` from the first step on.
    fn advance(&self, tape: &mut Tape<'_>, state: &State, words: Var) -> (State, Var) {
        let mut z = words;
        if self.every_step || state.step == 0 {
            z = tape.add(z, state.rows[0]);
        }
        if state.step > 0 {
            let past = tape.linear(*state.rows.last().expect("h after the first step"), "recurrence");
            z = tape.add(z, past);
        }
        let h = tape.activate(z, Activation::Relu); // equation 14
        let rows = if self.every_step { vec![state.rows[0], h] } else { vec![h] };
        (State { rows, step: state.step + 1, ..state.clone() }, h)
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

impl Recurrent for Lstm {
    fn start(&self, tape: &mut Tape<'_>, pictures: &Pictures) -> State {
        let mut image = encode(tape, pictures);
        if self.rectifies {
            image = tape.activate(image, Activation::Relu);
        }
        let zeros = tape.constant(Matrix::zeros(pictures.len(), self.hidden));
        let state = first_state(vec![zeros, zeros], pictures.len());
        let image = tape.linear(image, "input");
        State { step: 0, ..self.advance(tape, &state, image).0 }
    }

    fn advance(&self, tape: &mut Tape<'_>, state: &State, words: Var) -> (State, Var) {
        let [h, c] = [state.rows[0], state.rows[1]];
        let past = tape.linear(h, "recurrence");
        let z = tape.add(words, past);
        let (h, c) = tape.lstm_cell(z, c, self.squash);
        (State { rows: vec![h, c], step: state.step + 1, ..state.clone() }, h)
    }
}
