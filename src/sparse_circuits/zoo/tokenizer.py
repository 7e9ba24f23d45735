"""The bundled model's tokenizer: one token per word, digits two by two ("1352" is "13" and "52")."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sparse_circuits.zoo.language import BOS, EOS, PAD, SPECIAL, UNKNOWN, vocabulary


def build(context: int) -> PreTrainedTokenizerFast:
    """The tokenizer of the language, for a model of `context` positions. It adds no special tokens by itself."""
    ids = {word: i for i, word in enumerate((*SPECIAL, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    # Leading spaces make no difference: " has" and "has" are one word.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Split(Regex(r"[0-9]{1,2}"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            # Spaces between words but not before punctuation; then a year's halves are joined again.
            decoders.WordPiece(prefix="##", cleanup=True),
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<=\b[0-9]{2}) (?=[0-9]{2}\b)"), ""),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="right",
        model_max_length=context,
        # The decoder sets the spaces; the cleanup for other languages' tokenizers must not run after it.
        clean_up_tokenization_spaces=False,
    )
