/**
 * The simulator as one script: what a worker runs. Bundled once for all workers, because a loader that compiles each
 * file in each of them costs more than a universe, and because coverage and deliberate errors need one text to refer to.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type Plugin } from 'esbuild'

export const PROJECT_ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** Where scripts are put that need not last. */
const CACHE = join(PROJECT_ROOT, 'node_modules', '.cache', 'simulator')

/**
 * Bundles a worker of the simulator, with a source map beside it.
 * @param name of the script, without its ending
 * @param worker the one that looks into universes if not given
 * @returns path of the script
 */
export async function bundleWorker(
  name: string,
  plugins: Plugin[] = [],
  worker: 'universe-worker' | 'covered-worker' = 'universe-worker'
): Promise<string> {
  await mkdir(CACHE, { recursive: true })
  const outfile = join(CACHE, `${name}.mjs`)
  await build({
    absWorkingDir: PROJECT_ROOT,
    entryPoints: [`test/simulator/${worker}.ts`],
    outfile,
    bundle: true,
    sourcemap: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    // Only the project's own code is looked at; some packages ask for others in ways that a bundle does not have.
    packages: 'external',
    plugins,
    logLevel: 'silent',
  })
  return outfile
}
