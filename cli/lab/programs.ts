import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { XosanError } from '../../core/errors.ts'

const SUPERVISOR = 'xosan-lab-host.js'

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
  return existsSync(join(here, SUPERVISOR)) ? here : join(projectRoot(), 'dist')
}

/** @throws XosanError INVALID_ARGUMENT when a program that lab hosts run is not there */
export function checkPrograms(directory: string): void {
  const missing = [SUPERVISOR, 'xosand.js', 'xosan-datapath.js'].filter(
    name => !existsSync(join(directory, name))
  )
  if (missing.length > 0) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `the directory of programs ${directory}`,
      reason: `${missing.join(', ')} not found; \`npm run setup\` builds them`,
    })
  }
}
