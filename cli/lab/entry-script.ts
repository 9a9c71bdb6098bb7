import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { z } from 'zod'

const failureSchema = z.object({ code: z.string(), params: z.array(z.string()) })

/** What an entry script said instead of a result. */
export class EntryScriptError extends Error {
  readonly code: string
  readonly params: readonly string[]

  constructor(name: string, code: string, params: readonly string[]) {
    super(`${name}: ${code} (${params.join(', ')})`)
    this.name = 'EntryScriptError'
    this.code = code
    this.params = params
  }
}

const FOLDERS = { volume: 'volume/org.xen.xapi.storage.xosan', datapath: 'datapath/xosan' } as const

/**
 * Calls a SMAPIv3 entry script as xapi-storage-script does: `--json`, one object of named parameters on standard
 * input, and here with an empty environment, so that nothing of ours helps it along.
 *
 * @returns the JSON value that it printed
 * @throws EntryScriptError with the code and parameters of the answer
 */
export async function callEntryScript(
  pluginRoot: string,
  plugin: keyof typeof FOLDERS,
  name: string,
  parameters: Readonly<Record<string, unknown>>
): Promise<unknown> {
  const script = join(pluginRoot, FOLDERS[plugin], name)
  const child = spawn(script, ['--json'], { cwd: '/', env: {}, stdio: ['pipe', 'pipe', 'pipe'] })
  const output: Buffer[] = []
  const complaints: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => complaints.push(chunk))
  // A script that ends without reading its input breaks the pipe; how it ended says more.
  child.stdin.on('error', () => undefined)
  child.stdin.end(JSON.stringify(parameters))
  const exit = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  const text = Buffer.concat(output).toString('utf8')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new EntryScriptError(name, 'no JSON', [text, Buffer.concat(complaints).toString('utf8')])
  }
  if (exit === 0) return value
  const failure = failureSchema.parse(value)
  throw new EntryScriptError(name, failure.code, failure.params)
}
