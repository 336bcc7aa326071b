"""Where the prompt texts that this package does not carry are published, and their digests (see `frames`).

Digests are of the texts that safety-eval @72a9bae7 (WildGuard, Aegis, MD-Judge, HarmBench), PolyGuard @c815001c, the
NVIDIA model cards and the Gemma cookbook use. A place that holds other bytes is refused, not used.
"""

from __future__ import annotations

from guardreasoner.guards.others.fetch import Frame, Place

SAFETY_EVAL = "72a9bae7ce5e9e9be4a93b9ebcaf013cf0f29101"


def _safety_eval(file: str) -> Place:
    return Place("github", "bmonikraj/safety-eval", SAFETY_EVAL, f"src/templates/{file}")


def _any_guardrail(file: str) -> Place:
    return Place("package", "any-guardrail", "0.7.7", f"any_guardrail/{file}")


_ASSISTANT = {"{behavior}": "{prompt}", "{generation}": "{response}"}

WILDGUARD = Frame(
    "5e74b62445cca8e91d51deba51848059267bd2b8c279ac1c7a94adef445d8bdf",
    (("<|user|>\n[INST]", "<|assistant|>\n"),),
    (
        Place("package", "wildguard", "1.0.1", "wildguard/utils.py"),
        _any_guardrail("prompt_registry.py"),
        Place("github", "allenai/wildguard", "28c9d21e32e1191b526cdb605b9de11c17b58479", "wildguard/utils.py"),
    ),
)
POLYGUARD = Frame(
    "3fd9567dbe88d1e074a933e9a1bd0d5c08f63646ebab82e2b3f2b03b4c344e61",
    (("You are a classifier", "<END UNSAFE CONTENT CATEGORIES>"),),
    (
        _any_guardrail("_authored_prompt_data.py"),
        Place("github", "kpriyanshu256/polyguard", "c815001c6c0b0067a9a012635b9196b3d7991b65", "inference.py"),
    ),
)
HARMBENCH_LLAMA = Frame(
    "ff0cf18769f4551c67b5c3456a68b9a287a4def93c72b1578a7bc193ae8711b3",
    (("[INST] <<SYS>>", "Answer: [/INST]"),),
    (
        Place("hub", "cais/HarmBench-Llama-2-13b-cls", "bda705349d1144fa618770bea64d99ce54e3835b", "README.md"),
        _safety_eval("harmbench_classifier.py"),
    ),
    _ASSISTANT,
)
HARMBENCH_MISTRAL = Frame(
    "e912638e6276c237a892f708ce938f8c1a6cfed58c0547ce13e19e08963e15e0",
    (("[INST] You are a classifier", "Answer: [/INST]"),),
    (
        Place("hub", "cais/HarmBench-Mistral-7b-val-cls", "main", "README.md"),
        _safety_eval("harmbench_classifier.py"),
    ),
    _ASSISTANT,
)
MD_JUDGE = Frame(
    "293119b515e1ebcb64215f96a2a92c5346537e7b82f1ac8091edc99cd5d89c5f",
    (
        "[INST] ",
        ("Task: Check if", "<BEGIN UNSAFE CONTENT CATEGORIES>\n"),
        ("O1: Toxic Content", "preventing such violations."),
        "\n",
        ("<END UNSAFE CONTENT CATEGORIES>", "one single violated category."),
        " [/INST]",
    ),
    (
        _safety_eval("md_judge.py"),
        Place("github", "OpenSafetyLab/SALAD-BENCH", "main", "saladbench/template.py"),
    ),
    {"%s": "{prompt} {response}"},
)


def _aegis(sha256: str, variant: str) -> Frame:
    return Frame(
        sha256,
        (("[INST] Task: Check", "[/INST]"),),
        (Place("hub", f"nvidia/Aegis-AI-Content-Safety-LlamaGuard-{variant}-1.0", "main", "README.md"),),
        {"{{prompt}}": "{prompt}", "{text}": "{prompt}"},
    )


def _nemo(sha256: str, model: str, revision: str) -> Frame:
    return Frame(
        sha256,
        (("Task: Check if there is unsafe content in the user", "Output JSON:"), " "),
        (Place("hub", model, revision, "README.md"),),
        {"{{ user_input }}": "{prompt}", "{{ bot_response }}": "{response}"},
    )


def _policy(name: str, sha256: str, side: str, ends: str) -> Frame:
    opening = "The prompt shall" if side == "prompt" else "The chatbot shall"
    return Frame(
        sha256,
        ((f'"No {name}": {opening}', ends),),
        (
            Place("hub", "google/shieldgemma-2b", "091a5128690e57ca6a30f6fbec4a766d8b77e48d", "README.md"),
            _any_guardrail("content_registry.py"),
        ),
    )


_ENDS = {
    "Dangerous Content": "instructions for suicide).",
    "Hate Speech": "in a positive manner.",
    "Sexually Explicit Information": "are permitted.",
    "Harassment": "victims of violence).",
}
_POLICY_DIGESTS = {
    "prompt": (
        "567268efdd9a97d71681593ec2de203a37940391e9119a2b4f8f90fa2614932c",
        "a81e15a5175779f4d41058a32e08c39ff4508104770b5268dc7fb9024dd1f4e3",
        "5484a3497712d87997ee4d1852ea428c673fc6602ddf0d49b5b77bf42ae67715",
        "c47ea9cb3af15e21238450f97a981edd74361b02bbcdd08fb6b073906c72f7db",
    ),
    "response": (
        "ff9f9fc5e6127375e9dc31f871b016a92a8c83cf387ed6199581947f57d5b30c",
        "e97bf985255e9a0ba10974c5b5b465de6cb53f00413175ed9a7ccfe0d37c998e",
        "afe0dab71e10c73c3225d994d44a50517c3e31cec42e756f0cc92b5e87129733",
        "c6045f2bf2def2a0153edc6b396f7776a8ce33c9898234f2fbe82e49d0eaef99",
    ),
}
SHIELDGEMMA = {
    side: {name: _policy(name, sha, side, _ENDS[name]) for name, sha in zip(_ENDS, digests, strict=True)}
    for side, digests in _POLICY_DIGESTS.items()
}

AEGIS_PERMISSIVE = _aegis("d2457cbadc61198bb1e0a912c77d74f1b459041374b8a81bdef9f81e4aaa05b8", "Permissive")
AEGIS_DEFENSIVE = _aegis("7ac74bd90ca485a4fe22c20fb34b4146977eb2100469c4c9a504ebce94116cc0", "Defensive")

_NEMOGUARD = ("nvidia/llama-3.1-nemoguard-8b-content-safety", "main")
_NEMOTRON = ("nvidia/Llama-3.1-Nemotron-Safety-Guard-8B-v3", "8fdc246ba3d56db9c469d534233b9f582d3afafa")
NEMOGUARD = {
    "prompt": _nemo("050907d82524a2d6e2ac2e871b03c19fba5fe1adcb1b91ab429840bc8816ecaf", *_NEMOGUARD),
    "response": _nemo("27b900e6affaa96cb9cc76994b3c9e6236cd3c6c2a58c24429cc4c3f58f820ca", *_NEMOGUARD),
}
NEMOTRON = {
    "prompt": _nemo("535f3926d862b99f9319d30295f1a9bb133174beb5f22f981cde1d3136c186b3", *_NEMOTRON),
    "response": _nemo("81c3dbe36c649c2b5ed97a03b29a44e3cd74831851bc84161b1246f51be60cfd", *_NEMOTRON),
}

TEMPLATES: dict[str, tuple[str, str]] = {
    "llama-guard-7b": (
        "6d091d0f43a30c072baee2759f5fdf108e7aad31ea3f34aa810c76ad466df39d",
        "c1765c7bbd828c2207aacb608de548a93cdfa2a88be91722c46823d6dabdc458",
    ),
    "llama-guard-2-8b": (
        "68e4effd10f666b7e0ee3a30dc319c2676f2e09bb35770e172225d120bba23de",
        "abb602f39fd63004181c7f901aedcd08ff0b71da034c5271b5d7b12f5ebcc0ec",
    ),
    "llama-guard-3-8b": (
        "939ba19fbca36e1db0bf3beea4787dce3b8774d1234393713a6af56b99e95ad6",
        "c3894742829bc8cf13775f4e748be826285aa239120403d4ea80143d6ceb6b4a",
    ),
    "llama-guard-3-1b": (
        "5cd7b174187e2179f90a345fd77f0cb0b551690a44617928f30e4de7bd50c2e0",
        "a855b45851df1ec5e0cbcf4d0caedf98b5862eba313a72d39f11abdf881d08d4",
    ),
    "llama-guard-4-12b": (
        "8d5b6497d52df7eb48061b587f8378cb97e36465a9f4a2170974f9c1a1261648",
        "c1c7ae7599b3fd4b8f190d8270859968c99001c4e82e817a9365bc0c251d3138",
    ),
    "granite-guardian-3-0-8b": (
        "d3d2804fff2cddf6be953b780f241fc322d8960f236748780969e78531df262e",
        "a109017b90925a5ad3e8ac8f143f2221d1bfc30ec28085b7a3b398243c4949cf",
    ),
    "granite-guardian-3-2-5b": (
        "f598c9bf70fbed25640446dd545dba48aa3985ff220e0bd91316296606763883",
        "a03427fdd0dba86c256a189e53930543dc38323e857c201d05fab9546291508a",
    ),
}
"""What a model's own chat template made of `{prompt}` and `{response}` when this table was written, by public copies of
the template: SHA-256 of the request's and of the reply's prompt. A guard whose template makes other bytes of them says
so in every verdict's notes (`template`); it is not refused, since the copies are not the owners' files."""

_QWEN3GUARD = (
    "b347606822c2eaa946660885b8b53bde575f4c244668cb60b1108f46fbafc94c",
    "c3c501cf8ee8aa63f19bfe6c2d5dfa3fb39a751c7f51fb42a0c6aba25a68aac1",
)
TEMPLATES |= {f"qwen3guard-gen-{size}{level}": _QWEN3GUARD for size in ("0-6b", "4b", "8b") for level in ("", "-loose")}
