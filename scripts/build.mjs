/**
 * Bundles the programs into dist/: one file each, so that a process starts fast and nothing but Node and the
 * native packages is needed at run time.
 */
import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Program name in dist/ -> its first source file. */
const PROGRAMS = {
  xosand: 'daemon/main.ts',
  'xosan-datapath': 'datapath/process/main.ts',
  'xosan-etcd-gate': 'daemon/etcd/gate-main.ts',
  xosan: 'cli/main.ts',
  'xosan-lab-host': 'cli/lab/supervisor.ts',
  demo: 'cli/demo.ts',
}

/**
 * @param outdir is emptied first; must be inside the project, where the native packages are found
 * @param programs name in outdir -> first source file; those whose source is missing are left out
 */
export async function buildAll(outdir = join(root, 'dist'), programs = PROGRAMS) {
  await rm(outdir, { recursive: true, force: true })
  await build({
    absWorkingDir: root,
    entryPoints: Object.entries(programs)
      .filter(([, source]) => existsSync(join(root, source)))
      .map(([out, source]) => ({ in: source, out })),
    outdir,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    splitting: true,
    sourcemap: true,
    // Packages with native parts find their files relative to themselves and stay outside the bundle.
    external: ['better-sqlite3', 'fs-native-extensions', 'koffi'],
    // Bundled CommonJS packages call require(), which an ES module lacks.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    logLevel: 'warning',
  })
}
