import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** One that is always there. */
const DAEMON = 'xosand.js'

/** Root of this clone, whether this runs from the sources or from the bundle in dist/. */
export function projectRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(directory, 'package.json'))) {
    const parent = dirname(directory)
    if (parent === directory) throw new Error('the project that this program belongs to was not found')
    directory = parent
  }
  return directory
}

/** Where the programs of this build are: beside the bundle that runs, or in dist/ when this runs from the sources. */
export function programsDirectory(): string {
  const here = dirname(fileURLToPath(import.meta.url))
  return existsSync(join(here, DAEMON)) ? here : join(projectRoot(), 'dist')
}
