import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { XosanError } from '../../core/errors.ts'
import { GATE_PROGRAM } from '../../daemon/etcd/gate-arguments.ts'

const SUPERVISOR = 'xosan-lab-host.js'

/** @throws XosanError INVALID_ARGUMENT when a program that lab hosts run is not there */
export function checkPrograms(directory: string): void {
  const missing = [SUPERVISOR, 'xosand.js', 'xosan-datapath.js', GATE_PROGRAM].filter(
    name => !existsSync(join(directory, name))
  )
  if (missing.length > 0) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `the directory of programs ${directory}`,
      reason: `${missing.join(', ')} not found; \`npm run setup\` builds them`,
    })
  }
}
