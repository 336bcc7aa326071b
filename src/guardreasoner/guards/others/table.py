"""The table of other people's guards: the 25 systems of the paper's tables, and guards in use today.

One row is one system, one format module (`formats/`) one family. A guard of a known format needs one more row here and
nothing else. Sources of interfaces: model cards, safety-eval @72a9bae7 (the code behind the WildGuard paper's numbers,
which the paper copies), the owners' repositories; commits are those that public loaders name for these weights.
Retirement dates: the providers' deprecation pages.
"""

from __future__ import annotations

from guardreasoner.guards.base import GuardRow
from guardreasoner.guards.others.prompts import ASK, FRAMES, POLICIES, POLICY_FRAMES
from guardreasoner.types import Task

P, R = Task.prompt_harm, Task.response_harm
HARM = (P, R)
REPLY = (R,)


YES = ("Yes", "yes", " Yes", " yes")
NO = ("No", "no", " No", " no")
LLAMA2_WORDS = (" unsafe", " safe")
BEAVERDAM = "BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{response}</s>"
TALK = "Human user:\n{prompt}\n\nAI assistant:\n{response}"
ANY_POLICY = "one call per policy; harmful if any of the four is violated (the paper does not say how it joined them)"
SAFETY = {"prompt_harm": ("safety", "unsafe", "safe"), "response_harm": ("safety", "unsafe", "safe")}
GLIGUARD = {
    "prompt_harm": ("prompt_safety", "unsafe", "safe"),
    "response_harm": ("response_safety", "unsafe", "safe"),
    "refusal": ("response_refusal", "refusal", "compliance"),
}
GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai/"
LG1 = "dfcfa3409b9994a4722d44e05f82e81ea73c5106"

# fmt: off
PAPER: tuple[GuardRow, ...] = (
    GuardRow("openai-moderation", "moderation", "moderation", "omni-moderation-latest", tasks=HARM,
        key="OPENAI_API_KEY", note="the paper ran text-moderation, which was taken down on 2025-10-27"),
    GuardRow("gpt-4o", "three_task", "openai", "gpt-4o", options={"form": "plain", "max_tokens": 256},
        key="OPENAI_API_KEY", note="paper Fig. 16; its snapshot is not stated"),
    GuardRow("gpt-4o-cot", "three_task", "openai", "gpt-4o", options={"form": "cot", "max_tokens": 2048},
        key="OPENAI_API_KEY", note="paper Fig. 14; its snapshot is not stated"),
    GuardRow("gpt-4", "three_task", "openai", "gpt-4-0613", options={"form": "plain", "max_tokens": 256},
        key="OPENAI_API_KEY", retired="2026-10-23", current="gpt-5.6-sol",
        note="paper Fig. 16; its snapshot is not stated"),
    GuardRow("gpt-4-cot", "three_task", "openai", "gpt-4-0613", options={"form": "cot", "max_tokens": 2048},
        key="OPENAI_API_KEY", retired="2026-10-23", current="gpt-5.6-sol",
        note="paper Fig. 14; its snapshot is not stated"),
    GuardRow("o1-preview", "three_task", "openai", "o1-preview",
        options={"form": "merged", "max_tokens": 16384, "temperature": False},
        key="OPENAI_API_KEY", retired="2025-07-28", current="o3", confirmed=False,
        note="paper Fig. 17, the joint of its two parts is assumed; run on 5 % of each benchmark"),
    GuardRow("claude-3-5-sonnet", "three_task", "anthropic", "claude-3-5-sonnet-20241022",
        options={"form": "plain", "max_tokens": 256}, key="ANTHROPIC_API_KEY", retired="2025-10-28",
        current="claude-sonnet-4-6", note="paper Fig. 16; its snapshot is not stated"),
    GuardRow("gemini-1-5-pro", "three_task", "openai", "gemini-1.5-pro-002",
        options={"form": "merged", "max_tokens": 2048, "base_url": GEMINI}, key="GEMINI_API_KEY", retired="2025-09",
        current="gemini-3.1-pro-preview", confirmed=False,
        note="paper Fig. 17, the joint of its two parts is assumed"),
    GuardRow("llama-guard-7b", "safe_unsafe", "hf", "meta-llama/LlamaGuard-7b", LG1, HARM, {"words": LLAMA2_WORDS},
        gated=True, licence="llama2", confirmed=False),
    GuardRow("llama-guard-2-8b", "safe_unsafe", "hf", "meta-llama/Meta-Llama-Guard-2-8B",
        "7d257f3c1a0ec6ed99b2cb715027149dfb9784ef", HARM, gated=True, licence="llama3", confirmed=False,
        note="its card warns that the BeaverTails test set overlaps its training data"),
    GuardRow("llama-guard-3-8b", "safe_unsafe", "hf", "meta-llama/Llama-Guard-3-8B",
        "7327bd9f6efbbe6101dc6cc4736302b3cbb6e425", HARM, {"lead": "\n\n"}, gated=True, licence="llama3.1"),
    GuardRow("aegis-guard-defensive", "safe_unsafe", "hf", "meta-llama/LlamaGuard-7b", LG1, HARM,
        {"frame": FRAMES["aegis-defensive"], "one_turn": True, "words": LLAMA2_WORDS,
         "adapter": "nvidia/Aegis-AI-Content-Safety-LlamaGuard-Defensive-1.0",
         "adapter_revision": "f54cb2302ee876705dc0f7df2288f442c034b2f3"},
        gated=True, licence="llama2", confirmed=False,
        note="LoRA; the card's text may differ from safety-eval's, which is pinned: give --option frame=FILE then"),
    GuardRow("aegis-guard-permissive", "safe_unsafe", "hf", "meta-llama/LlamaGuard-7b", LG1, HARM,
        {"frame": FRAMES["aegis-permissive"], "one_turn": True, "words": LLAMA2_WORDS,
         "adapter": "nvidia/Aegis-AI-Content-Safety-LlamaGuard-Permissive-1.0",
         "adapter_revision": "b30b989901b4d129c231b0c55fd8c7cc936c38b6"},
        gated=True, licence="llama2", confirmed=False,
        note="LoRA; the card's text may differ from safety-eval's, which is pinned: give --option frame=FILE then"),
    GuardRow("aegis-guard-2", "json_ratings", "hf", "meta-llama/Llama-3.1-8B-Instruct",
        "0e9e39f249a16976918f6564b8830bc894c89659", HARM,
        {"frame": FRAMES["nemoguard"], "adapter": "nvidia/llama-3.1-nemoguard-8b-content-safety",
         "adapter_revision": "ef1f9de54f760180f70b517dd10362d9463ddc58",
         "adapter_subfolder": "llama-3.1-nemoguard-8b-content-safety-lora-adapter"},
        gated=True, licence="nvidia-open-model", confirmed=False,
        note="LoRA; also published as Llama Nemotron Safety Guard V2"),
    GuardRow("shieldgemma-2b", "yes_no", "hf", "google/shieldgemma-2b", "091a5128690e57ca6a30f6fbec4a766d8b77e48d",
        HARM, {"policies": POLICY_FRAMES["shieldgemma"], "policy_arg": "guideline"}, gated=True, licence="gemma",
        note=ANY_POLICY),
    GuardRow("shieldgemma-9b", "yes_no", "hf", "google/shieldgemma-9b", "b8b636016df4540721a098c7aab91c97ec6ee508",
        HARM, {"policies": POLICY_FRAMES["shieldgemma"], "policy_arg": "guideline"}, gated=True, licence="gemma",
        note=ANY_POLICY),
    GuardRow("harmbench-llama-13b", "yes_no", "hf", "cais/HarmBench-Llama-2-13b-cls",
        "bda705349d1144fa618770bea64d99ce54e3835b", REPLY,
        {"frame": FRAMES["harmbench-llama"], "yes_words": (" yes", " Yes"), "no_words": (" no", " No")},
        licence="mit",
        note="asks whether the behaviour was carried out, not whether the reply is harmful"),
    GuardRow("harmbench-mistral-7b", "yes_no", "hf", "cais/HarmBench-Mistral-7b-val-cls",
        "51182c7cdaf9b2e5f05b745b81b047b67e7384a1", REPLY,
        {"frame": FRAMES["harmbench-mistral"], "yes_words": (" yes", " Yes"), "no_words": (" no", " No")},
        licence="mit", note="asks whether the behaviour was carried out, not whether the reply is harmful"),
    GuardRow("md-judge", "safe_unsafe", "hf", "OpenSafetyLab/MD-Judge-v0.1",
        "993302ce502a634b64a1cb8be95b6729d4d27b13", REPLY,
        {"frame": FRAMES["md-judge"], "words": LLAMA2_WORDS}, licence="apache-2.0",
        note="policy of 16 tasks, the default of its own evaluator"),
    GuardRow("beaverdam", "classifier_head", "classifier", "PKU-Alignment/beaver-dam-7b",
        "3a5b70888869f04336d0d8344185ed74268ef896", REPLY,
        {"frame": {"response": BEAVERDAM}, "function": "sigmoid", "context_tokens": 512}, licence="cc-by-nc-4.0",
        note="threshold 0.5 as in the WildGuard paper; upstream 0.4 (--option threshold=0.4); trained on BeaverTails"),
    GuardRow("wildguard", "wildguard", "hf", "allenai/wildguard", "cbba4823f3e8020e5a74a5e29bf85072def6f2ff",
        options={"frame": FRAMES["wildguard"]}, gated=True, licence="apache-2.0"),
    GuardRow("qwq-preview", "three_task", "hf", "Qwen/QwQ-32B-Preview", "91906fe41a48b6a89ce2970abfd1269eefee170e",
        options={"form": "merged", "max_tokens": 8192}, licence="apache-2.0", confirmed=False,
        note="paper Fig. 17, the joint of its two parts is assumed; run on 5 % of each benchmark"),
)
"""The paper's systems other than GuardReasoner itself (1B, 3B, 8B: in `load.OURS`)."""


# fmt: on
def _granite(version: str, size: str, revision: str, *, confirmed: bool, note: str = "") -> GuardRow:
    return GuardRow(
        f"granite-guardian-{version.replace('.', '-')}-{size}",
        "yes_no",
        "hf",
        f"ibm-granite/granite-guardian-{version}-{size}",
        revision,
        HARM,
        {
            "template_args": {"guardian_config": {"risk_name": "harm"}},
            "policy_arg": "risk_definition",
            "yes_words": YES,
            "no_words": NO,
        },
        licence="apache-2.0",
        confirmed=confirmed,
        note=note,
    )


def _qwen(size: str, revision: str, level: str) -> GuardRow:
    return GuardRow(
        f"qwen3guard-gen-{size.lower().replace('.', '-')}" + ("-loose" if level == "loose" else ""),
        "qwen3guard",
        "hf",
        f"Qwen/Qwen3Guard-Gen-{size}",
        revision,
        options={"level": level},
        licence="apache-2.0",
        confirmed=False,
        note=f"{level}: Controversial counts as {'harmful' if level == 'strict' else 'unharmful'}",
    )


_QWEN = {
    "0.6B": "fada3b2f655b89601929198343c94cd2f64d93cc",
    "4B": "ec9748ae4e3acd5abc74f62d93ffbd458f1ca38e",
    "8B": "4505cb1a6f1864f21f8b27f7daf1b9a1aab6edbb",
}
_OPIR = {
    "edge": "467a0431f744522f92f4e37d7756309b4c12332a",
    "edge-multilang": "969a05f901f8de234b0204f5309cb7e6450e6371",
    "multitask-large": "69bb27407d66eab4797049d36ba75eef3579335b",
    "multitask-multilang": "1c1d66bd22e0ba93a435c710a9d9499be292cd65",
}
_PROMPT_GUARD = {
    "86M": "a8ded8e697ce7c355e395a0df51f94adb4a2fd27",
    "22M": "11614a155199674a0a95e6602d6ab0417b790ed0",
}

# fmt: off
NOW: tuple[GuardRow, ...] = (
    GuardRow("llama-guard-3-1b", "safe_unsafe", "hf", "meta-llama/Llama-Guard-3-1B",
        "acf7aafa60f0410f8f42b1fa35e077d705892029", HARM, {"lead": "\n\n", "parts": True, "policy_arg": "categories"},
        gated=True, licence="llama3.2"),
    GuardRow("llama-guard-4-12b", "safe_unsafe", "hf", "meta-llama/Llama-Guard-4-12B",
        "87acb4b94e930c3d679e6e7ee9d57e2feab9ea71", HARM,
        {"lead": "\n\n", "parts": True, "policy_arg": "categories", "kind": "image-text"},
        gated=True, licence="llama4", confirmed=False, note="text only"),
    _granite("3.0", "8b", "81c9105958545715d412c688afb862e4b1395f56", confirmed=True),
    _granite(
        "3.1",
        "2b",
        "81145486e85c6c82c01e759c0356d9d6da4d21a5",
        confirmed=False,
        note="its template prints the day's date, so scores may move from one day to the next",
    ),
    _granite("3.2", "5b", "43e35985198a4cc97db3d489455aa96d1dd8a80e", confirmed=True),
    GuardRow("granite-guardian-3-3-8b", "yes_no", "hf", "ibm-granite/granite-guardian-3.3-8b",
        "b3421eda4ba6fc9f9a71121d7e62de08827469a4", HARM,
        {"template_args": {"guardian_config": {"criteria_id": "harm"}, "think": False}, "policy_arg": "custom_criteria",
         "lead": "<score>", "yes_words": (" yes",), "no_words": (" no",)},
        licence="apache-2.0", confirmed=False, note="asked without its reasoning"),
    *(_qwen(size, revision, level) for size, revision in _QWEN.items() for level in ("strict", "loose")),
    GuardRow("polyguard-qwen", "wildguard", "hf", "ToxicityPrompts/PolyGuard-Qwen",
        "644bfe73ff498c9a14818b72a11187eaf23f0ff1",
        options={"frame": {**FRAMES["polyguard"], "prompt": TALK}, "max_tokens": 100}, licence="cc-by-4.0"),
    GuardRow("gpt-oss-safeguard-20b", "yes_no", "hf", "openai/gpt-oss-safeguard-20b",
        "8a11e17b25c973a24099d4016bf2e17dd7ec1574",
        options={"policies": POLICIES, "policy_arg": "system", "ask": ASK, "scored": False, "max_tokens": 2048,
                 "yes_words": ("1",), "no_words": ("0",), "show_special": True},
        licence="apache-2.0", note="follows a written policy: ours unless one is given"),
    GuardRow("nemotron-safety-guard-8b", "json_ratings", "hf", "nvidia/Llama-3.1-Nemotron-Safety-Guard-8B-v3",
        "8fdc246ba3d56db9c469d534233b9f582d3afafa", HARM, {"frame": FRAMES["nemotron"]}, licence="nvidia-open-model",
        confirmed=False),
    *(
        GuardRow(f"guardreasoner-vl-{size.lower()}", "three_task", "hf", f"yueliu1999/GuardReasoner-VL-{size}",
            None, HARM, {"form": "vl", "max_tokens": 4096, "kind": "image-text"},
            licence="apache-2.0", confirmed=False, note="text only")
        for size in ("3B", "7B")
    ),
    GuardRow("shieldgemma-27b", "yes_no", "hf", "google/shieldgemma-27b", None,
        HARM, {"policies": POLICY_FRAMES["shieldgemma"], "policy_arg": "guideline"}, gated=True, licence="gemma",
        note=f"ShieldGemma 2 judges images; this is the largest text model. {ANY_POLICY}"),
    GuardRow("leanguard", "label_heads", "classifier", "", options={"function": "sigmoid", "context_tokens": 512},
        licence="", confirmed=False, unreleased="not out yet (its README, June 2026: coming soon)",
        note="395M ModernBERT-large, a head per task, no reasoning; --model FOLDER of a classifier with three outputs"),
    GuardRow("gliguard", "schema_labels", "schema", "fastino/gliguard-LLMGuardrails-300M",
        "4c03acfe6fcef7bb806d0ae721742d593ddba387",
        options={"library": "gliner2", "questions": GLIGUARD}, licence="apache-2.0", confirmed=False,
        note="reads prompt_safety, response_safety and response_refusal; its own benchmark joins more heads"),
    GuardRow("gliner-guard-omni", "schema_labels", "schema", "hivetrace/gliner-guard-omni",
        "763f8aa9a7714dd2c3264f3751acdd5d854c5ac4", HARM, {"library": "gliner2", "questions": SAFETY},
        confirmed=False, note="labels as Opir's harness gives them"),
    *(
        GuardRow(f"opir-{name}", "schema_labels", "schema", f"knowledgator/opir-{name}-v1.0", revision, HARM,
            {"library": "gliclass", "questions": SAFETY, "context_tokens": 1024}, licence="apache-2.0", confirmed=False,
            note="trained on parts of WildGuardTrain and Aegis 2")
        for name, revision in _OPIR.items()
    ),
    *(
        GuardRow(f"prompt-guard-2-{size.lower()}", "classifier_head", "classifier",
            f"meta-llama/Llama-Prompt-Guard-2-{size}", revision, (),
            {"finds": "attack", "labels": ("benign", "attack"), "harm_labels": ("attack",), "context_tokens": 512},
            gated=True, licence="llama4", confirmed=False,
            note="finds prompt attacks, not harm: it answers none of the three tasks and fills `attack` of the verdict")
        for size, revision in _PROMPT_GUARD.items()
    ),
    *(
        GuardRow(f"granite-guardian-hap-{size}", "classifier_head", "classifier",
            f"ibm-granite/granite-guardian-hap-{size}", revision, HARM,
            {"labels": ("clean", "toxic"), "harm_labels": ("toxic",), "context_tokens": 512}, licence="apache-2.0",
            confirmed=False, note="hate, abuse and profanity of a text by itself, not harmful intent")
        for size, revision in (("38m", "faf9291163c7363d4a7ba7fc1dc72243214af931"), ("125m", None))
    ),
    GuardRow("toxic-prompt-roberta", "classifier_head", "classifier", "Intel/toxic-prompt-roberta",
        "639858bb74d59ac9b48e5c808359e0202b2f787f", HARM,
        {"labels": ("not toxic", "toxic"), "harm_labels": ("toxic",), "context_tokens": 512}, licence="mit",
        confirmed=False, note="trained on ToxicChat; a text by itself"),
    GuardRow("chat", "three_task", "openai", "", options={"form": "ours", "max_tokens": 2048}, key="OPENAI_API_KEY",
        note="any OpenAI-compatible chat model with GuardReasoner's instruction: give --model, and --base-url"),
)
"""The guards people use now."""

# fmt: on
BASELINES: tuple[GuardRow, ...] = (*PAPER, *NOW)
