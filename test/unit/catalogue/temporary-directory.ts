import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A directory for one test's databases. */
export class TemporaryDirectory {
  readonly path = mkdtempSync(join(tmpdir(), 'xosan-catalogue-'))
  readonly catalogue = join(this.path, 'catalogue.sqlite')

  remove(): void {
    rmSync(this.path, { recursive: true })
  }
}
