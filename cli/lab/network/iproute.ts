/** Runs the programs of iproute2, through which the kernel is told about namespaces, links and queues. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { type z } from 'zod'
import { XosanError, reasonOf } from '../../../core/errors.ts'
import { PATH, requireProgram } from '../find-program.ts'

const execute = promisify(execFile)

/** The programs of a network of namespaces, and the package that has each (so named by Debian and by Fedora). */
const PACKAGES = { ip: 'iproute2', tc: 'iproute2', nsenter: 'util-linux' } as const

/** A command of iproute2 takes milliseconds; one that hangs on a kernel lock must not hang the lab. */
const TIMEOUT_MS = 20_000

/**
 * @param what the lab wants to do, as the beginning of a sentence
 * @throws XosanError ROOT_REQUIRED, PROGRAM_MISSING
 */
export function requireNetworkTools(what: string): void {
  if (process.geteuid?.() !== 0) throw new XosanError('ROOT_REQUIRED', { what })
  for (const [program, packageName] of Object.entries(PACKAGES)) requireProgram(what, program, packageName)
}

/** Runs `ip` with these words. @throws XosanError LAB_NETWORK_BROKEN with what it said */
export async function ip(...words: readonly string[]): Promise<string> {
  return await run('ip', words)
}

/** Runs commands of `ip` in a namespace, in this order, up to the first that fails. @throws as {@link ip} */
export async function ipBatch(namespace: string, commands: readonly string[]): Promise<void> {
  await run('ip', ['-n', namespace, '-batch', '-'], `${commands.join('\n')}\n`)
}

/** What `ip` shows, checked. @throws as {@link ip}; XosanError LAB_NETWORK_BROKEN when it is of another shape */
export async function ipJson<S extends z.ZodType>(
  schema: S,
  namespace: string,
  ...words: readonly string[]
): Promise<z.infer<S>> {
  return await json('ip', schema, ['-j', '-n', namespace, ...words])
}

/** Runs `tc` in a namespace. @throws as {@link ip} */
export async function tc(namespace: string, ...words: readonly string[]): Promise<void> {
  await run('tc', ['-n', namespace, ...words])
}

/** What `tc` shows, checked. @throws as {@link ipJson} */
export async function tcJson<S extends z.ZodType>(
  schema: S,
  namespace: string,
  ...words: readonly string[]
): Promise<z.infer<S>> {
  return await json('tc', schema, ['-j', '-n', namespace, ...words])
}

async function json<S extends z.ZodType>(
  program: 'ip' | 'tc',
  schema: S,
  words: readonly string[]
): Promise<z.infer<S>> {
  const text = await run(program, words)
  try {
    // Where there is nothing to show, some versions print nothing.
    return schema.parse(text.trim() === '' ? [] : JSON.parse(text))
  } catch (error) {
    throw failure(program, words, `something that is not understood (${reasonOf(error)})`, error)
  }
}

async function run(program: 'ip' | 'tc', words: readonly string[], input = ''): Promise<string> {
  const running = execute(program, words, { env: { ...process.env, PATH }, timeout: TIMEOUT_MS })
  // A command that fails before it has read all says why on its standard error.
  running.child.stdin?.on('error', () => undefined)
  running.child.stdin?.end(input)
  try {
    return (await running).stdout
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim().replaceAll('\n', ' / ')
    throw failure(program, words, said === undefined || said === '' ? reasonOf(error) : said, error)
  }
}

const failure = (program: string, words: readonly string[], reason: string, cause: unknown): XosanError =>
  new XosanError(
    'LAB_NETWORK_BROKEN',
    { reason: `\`${[program, ...words].join(' ')}\` said: ${reason}` },
    { cause }
  )
