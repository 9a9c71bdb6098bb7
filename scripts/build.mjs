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
  xosan: 'cli/main.ts',
  demo: 'cli/demo.ts',
}

export async function buildAll() {
  const outdir = join(root, 'dist')
  await rm(outdir, { recursive: true, force: true })
  await build({
    absWorkingDir: root,
    entryPoints: Object.entries(PROGRAMS)
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
    external: ['better-sqlite3', 'fs-native-extensions'],
    // Bundled CommonJS packages call require(), which an ES module lacks.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    logLevel: 'warning',
  })
}
