#!/usr/bin/env python3
"""The rules of ARCHITECTURE.md and CONTRIBUTING.md that the compiler does not check.

Which module may include what, where public headers live, how long files may be, which calls are
reserved to kernelio, and what must not be committed. Prints one line per finding and exits 1 when
there is one. `lint.py --self-test` checks the rules against small samples.
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LINES_MAX = 500
MODULES = ["kernelio", "replicator", "gitlayer", "rpc"]

# Third-party headers by prefix, and who may include them. Tests may include all.
THIRD_PARTY = {
    "liburing": {"kernelio"},
    "linux/io_uring": {"kernelio"},
    "rocksdb/": {"gitlayer"},
    "git2": {"gitlayer"},
    "libdeflate": {"gitlayer"},
    "zlib": {"gitlayer", "tools"},
    "xxhash": {"replicator"},
    "capnp/": {"rpc"},
    "kj/compat/": {"rpc"},
    "nlohmann/": {"rpc", "tools"},
    "toml++/": {"rpc"},
    "google/protobuf/": {"tools"},
    "CLI/": {"tools"},
    "spdlog/": {"tools"},
    "systemd/": {"tools"},
    "openssl/": {"gitlayer", "rpc", "tools"},
}
# co.h needs the version number of KJ, which Cap'n Proto's common.h gives.
ALLOWED = {("kernelio/include/kernelio/co.h", "capnp/common.h")}

# What takes from the surroundings goes through kernelio::Env. Programs under tools are outside.
BANNED_CALLS = {
    r"(?<![\w.>:])time\s*\(\s*(0|NULL|nullptr|&)": "time()",
    r"(?<![\w.>])rand\s*\(\s*\)": "rand()",
    r"\bgetenv\s*\(": "getenv()",
    r"\bstd::random_device\b": "std::random_device",
    r"\bgettimeofday\s*\(": "gettimeofday()",
    r"\bclock_gettime\s*\(": "clock_gettime()",
    r"(?<![\w.>:])u?sleep\s*\(": "sleep()",
    r"\bsleep_for\s*\(": "sleep_for()",
    r"\bsystem_clock::now\b": "system_clock::now()",
}
# Spelled so that this file does not find itself.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
TEXT_SUFFIXES = (".h", ".cc", ".py", ".sh", ".md", ".txt", ".cmake", ".proto", ".capnp", ".toml",
                 ".json")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def strip_code(text):
    """C++ without comments and string contents, line structure kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    pattern = r'R"\((?:.|\n)*?\)"|//[^\n]*|/\*(?:.|\n)*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\''
    return re.sub(pattern, blank, text)


def module_of(path):
    top = path.split("/", 1)[0]
    return top if top in MODULES or top in ("tools", "tests") else None


def check_include(path, module, header, findings, line):
    where = f"{path}:{line}"
    for prefix, modules in THIRD_PARTY.items():
        if header.startswith(prefix) and module not in modules and module != "tests":
            if (path, header) not in ALLOWED:
                findings.append(f"{where}: {module} must not include <{header}>; only "
                                f"{', '.join(sorted(modules))} may")
    owner = header.split("/", 1)[0]
    if owner in MODULES and module in MODULES:
        if MODULES.index(owner) > MODULES.index(module):
            findings.append(f"{where}: {module} includes upward, from {owner}")
    generated = header.endswith((".pb.h", ".capnp.h"))
    if generated and "/include/" in path:
        findings.append(f"{where}: a public header must not include generated code (<{header}>)")
    if generated and owner in MODULES and module in MODULES and owner != module:
        findings.append(f"{where}: the schema of {owner} is its own (<{header}>)")
    if header.startswith("kj/compat/") and "/include/" in path:
        findings.append(f"{where}: a public header must not include <{header}>")


def check_code(path, text, findings):
    module = module_of(path)
    if module is None:
        return
    for number, line in enumerate(text.split("\n"), 1):
        match = INCLUDE.match(line)
        if match:
            check_include(path, module, match.group(2), findings, number)
    if path.endswith(".h"):
        if not text.startswith("//"):
            findings.append(f"{path}:1: a header opens with a comment that says what it is and why")
        if "#pragma once" not in text:
            findings.append(f"{path}:1: #pragma once is missing")
    if module not in ("kernelio", "tools", "tests"):
        for number, line in enumerate(strip_code(text).split("\n"), 1):
            for pattern, name in BANNED_CALLS.items():
                if re.search(pattern, line):
                    findings.append(f"{path}:{number}: {name} is kernelio's; use Env")
    check_awaits(path, strip_code(text), findings)
    if module in MODULES and re.search(r"^\s*using namespace", strip_code(text), re.M):
        if path.endswith(".h"):
            findings.append(f"{path}: no using namespace in a header")


def await_expressions(code):
    """The text of each co_await expression up to its end, and the line that it starts on."""
    for match in re.finditer(r"\bco_await\b", code):
        depth = 0
        end = match.end()
        while end < len(code):
            if code[end] in "({[":
                depth += 1
            elif code[end] in ")}]":
                depth -= 1
            if depth < 0 or (code[end] == ";" and depth == 0):
                break
            end += 1
        yield code[match.end():end], code.count("\n", 0, match.start()) + 1


# g++ 12 destroys these temporaries twice when they are part of a co_await expression (co.h).
LAMBDA = re.compile(r"[(,]\s*\[([^\]]*)\]\s*(?:\(|\{|mutable)")
AGGREGATE = re.compile(r"[(,]\s*(?:\w+(?:::\w+)*)?\{([^{}]*)\}")
ASSERTED = re.compile(r"\bKJ_(?:ASSERT|REQUIRE)_NONNULL\b")
OWNING = re.compile(r"\b(?:mv|move|str|heap\w*|make_(?:shared|unique)|addRef)\b")


def check_awaits(path, code, findings):
    for expression, number in await_expressions(code):
        where = f"{path}:{number}"
        for match in LAMBDA.finditer(expression):
            captures = [c.strip() for c in match.group(1).split(",") if c.strip()]
            if any(c != "this" and (not c.startswith("&") or "=" in c) for c in captures):
                findings.append(f"{where}: a lambda with captures by value inside co_await is "
                                "destroyed twice by g++ 12; make its promise in a statement before")
        if ASSERTED.search(expression):
            findings.append(f"{where}: g++ 12 evaluates KJ_ASSERT_NONNULL inside co_await wrongly; "
                            "make the promise in a statement before")
        for match in AGGREGATE.finditer(expression):
            if OWNING.search(match.group(1)):
                findings.append(f"{where}: an aggregate that owns something inside co_await is "
                                "destroyed twice by g++ 12; give it a name in a statement before")


def check_place(path, findings):
    parts = path.split("/")
    if parts[0] in MODULES and path.endswith(".h"):
        public = len(parts) == 4 and parts[1] == "include" and parts[2] == parts[0]
        private = parts[1] == "src"
        if not public and not private:
            findings.append(f"{path}: a header belongs in {parts[0]}/include/{parts[0]} or "
                            f"{parts[0]}/src")


def check_text(path, text, findings):
    lines = text.split("\n")
    if path.endswith((".h", ".cc", ".py", ".sh")) and len(lines) - 1 > LINES_MAX:
        findings.append(f"{path}: {len(lines) - 1} lines; split what is longer than {LINES_MAX}")
    for number, line in enumerate(lines, 1):
        if "\t" in line and path.endswith((".h", ".cc", ".py", ".proto", ".capnp", ".cmake")):
            findings.append(f"{path}:{number}: a tab")
        if line.endswith((" ", "\r")) and not path.endswith(".md"):
            findings.append(f"{path}:{number}: white space at the end of the line")
        if UNFINISHED.search(line):
            findings.append(f"{path}:{number}: a mark of unfinished work")
        if line.startswith(("<<<<<<< ", ">>>>>>> ")):
            findings.append(f"{path}:{number}: a merge conflict")
    if text and not text.endswith("\n"):
        findings.append(f"{path}: no newline at the end")


def check_file(path, text):
    findings = []
    check_text(path, text, findings)
    if path.endswith((".h", ".cc")):
        check_place(path, findings)
        check_code(path, text, findings)
    return findings


def files():
    for folder, folders, names in os.walk(ROOT):
        relative = os.path.relpath(folder, ROOT)
        folders[:] = sorted(d for d in folders if d not in (".git", "build", "__pycache__", "corpus"))
        for name in sorted(names):
            path = os.path.normpath(os.path.join(relative, name))
            if name.endswith(TEXT_SUFFIXES) or name in ("dev", "run"):
                yield path


def self_test():
    header = "// A thing.\n#pragma once\n"
    samples = [
        ("rpc/include/rpc/a.h", header, 0),
        ("rpc/include/rpc/a.h", "#pragma once\n", 1),
        ("rpc/include/rpc/a.h", "// A thing.\n", 1),
        ("rpc/a.h", header, 1),
        ("gitlayer/src/a.cc", "#include <rpc/a.h>\n", 1),
        ("rpc/src/a.cc", "#include <gitlayer/a.h>\n", 0),
        ("replicator/src/a.cc", "#include <liburing.h>\n", 1),
        ("kernelio/src/a.cc", "#include <liburing.h>\n", 0),
        ("replicator/src/a.cc", "#include <capnp/rpc.h>\n", 1),
        ("rpc/include/rpc/a.h", header + "#include <kj/compat/http.h>\n", 1),
        ("gitlayer/src/a.cc", "#include <replicator/replicator_records.pb.h>\n", 1),
        ("gitlayer/src/a.cc", "int x = rand();\n", 1),
        ("gitlayer/src/a.cc", "// rand() is banned\nauto s = \"time(0)\";\n", 0),
        ("gitlayer/src/a.cc", "int x = stat.time(0);\n", 0),
        ("kernelio/src/a.cc", "clock_gettime(0, 0);\n", 0),
        ("gitlayer/src/a.cc", "auto x = co_await pool.run([job]() { job->go(); });\n", 1),
        ("gitlayer/src/a.cc", "co_await f(1, [x = kj::mv(y)]() mutable { g(x); });\n", 1),
        ("gitlayer/src/a.cc", "co_await p.then([this, &a](int b) { return v[i] + b; });\n", 0),
        ("gitlayer/src/a.cc", "auto p = f([job]() {});\nco_await kj::mv(p);\n", 0),
        ("gitlayer/src/a.cc", "co_await peer.send(Request{id, kj::mv(records)});\n", 1),
        ("gitlayer/src/a.cc", "co_await disk.open(path, {.write = true});\n", 0),
        ("gitlayer/src/a.cc", "co_await f(KJ_ASSERT_NONNULL(x));\n", 1),
        ("gitlayer/src/a.cc", "// TO" + "DO\n", 1),
        ("gitlayer/src/a.cc", "int a;\t// x\n", 1),
        ("gitlayer/src/a.cc", "int a;\n" * (LINES_MAX + 1), 1),
        ("gitlayer/src/a.cc", "int a;", 1),
    ]
    failures = 0
    for path, text, expected in samples:
        findings = check_file(path, text)
        if len(findings) != expected:
            failures += 1
            print(f"self-test: {path} {text[:60]!r}: expected {expected} findings, got {findings}")
    return failures


def main():
    if sys.argv[1:] == ["--self-test"]:
        failures = self_test()
        print("The lint's own rules work." if not failures else f"{failures} samples fail.")
        return 1 if failures else 0
    count, findings = 0, []
    for path in files():
        with open(os.path.join(ROOT, path), errors="replace") as f:
            findings += check_file(path, f.read())
        count += 1
    for finding in findings:
        print(finding)
    print(f"{count} files, {len(findings)} findings.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
