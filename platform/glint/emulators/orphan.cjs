// Loaded into an emulator before its own code: ends it when the process that started it has ended, however it ended.
// The standard input is a pipe from that process, which the kernel closes with it. SIGTERM lets azurite save its data.
"use strict";

process.stdin.on("end", () => process.kill(process.pid, "SIGTERM"));
process.stdin.resume();
