import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

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

/** Where the programs of this build are. */
export const programsDirectory = (): string => join(projectRoot(), 'dist')
