import { readFile, rename, writeFile } from 'node:fs/promises'
import { z } from 'zod'
import { type ProcessHandle } from '../../daemon/supervision/process-handle.ts'
import { type Run, bootId, runSchema } from '../../daemon/supervision/run.ts'

const pidFileSchema = z.strictObject({
  version: z.literal(1),
  /** The kernel's boot id: start times of another boot mean nothing. */
  boot: z.string(),
  supervisor: runSchema.nullable(),
  /** By program name (`xosand`, `datapath-0`, ...); null while it is down and about to be started again. */
  programs: z.record(z.string(), runSchema.nullable()),
})

/** Who runs on one lab host. */
export type PidFile = z.infer<typeof pidFileSchema>

/**
 * What a host's pid file says about this boot. A missing, damaged or older file says that nothing runs: whoever
 * acts on it also looks for processes by their arguments.
 */
export async function readPidFile(path: string): Promise<PidFile> {
  const nothing: PidFile = { version: 1, boot: bootId(), supervisor: null, programs: {} }
  const text = await readFile(path, 'utf8').catch(() => '')
  try {
    const file = pidFileSchema.parse(JSON.parse(text))
    return file.boot === nothing.boot ? file : nothing
  } catch {
    return nothing
  }
}

/** Replaces the file as a whole: a reader sees the old one or the new one. */
export async function writePidFile(path: string, file: PidFile): Promise<void> {
  const temporary = `${path}.new`
  await writeFile(temporary, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o600 })
  await rename(temporary, path)
}

/** Supervisor first, then the programs: the order in which a host is killed, so that nobody restarts the dead. */
export function handlesIn(file: PidFile): { name: string; handle: ProcessHandle; restarts: number }[] {
  const runs: [string, Run | null][] = [['supervisor', file.supervisor], ...Object.entries(file.programs)]
  return runs.flatMap(([name, run]) =>
    run === null
      ? []
      : [{ name, handle: { pid: run.pid, startTicks: run.startTicks }, restarts: run.restarts }]
  )
}
