// Tells on stdout what chokidar says of a directory: `there PATH` or `gone PATH`, in its order. CHOKIDAR says where it is installed.
import path from "node:path";
import { createRequire } from "node:module";

const root = path.resolve(process.argv[2]);
const { watch } = createRequire(import.meta.url)(process.env.CHOKIDAR);
const tell = (word) => (at) => console.log(word, path.relative(root, at));
const watcher = watch(root, { ignoreInitial: true });
for (const event of ["add", "change", "addDir"]) watcher.on(event, tell("there"));
for (const event of ["unlink", "unlinkDir"]) watcher.on(event, tell("gone"));
watcher.on("ready", () => console.log("ready"));
