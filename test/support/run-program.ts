import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

export interface ProgramResult {
  /** Null when it was ended by a signal. */
  readonly code: number | null
  /** What it wrote to stdout and stderr, in order of arrival. */
  readonly output: string
}

/** Whether the system has a program; Debian keeps some outside of a user's PATH. */
export function hasProgram(name: string): boolean {
  const places = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin']
  return places.some(place => {
    try {
      accessSync(join(place, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/**
 * Runs a program to its end.
 * @param timeoutMs after which it is ended by SIGKILL, so that no test leaves one behind
 */
export function runProgram(
  command: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly input?: string; readonly timeoutMs?: number } = {}
): Promise<ProgramResult> {
  return new Promise(resolve => {
    const path = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`
    const child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, PATH: path, LC_ALL: 'C' },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    })
    let output = ''
    const collect = (chunk: Buffer): void => {
      output += chunk.toString()
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    child.stdin.on('error', () => undefined)
    child.stdin.end(options.input ?? '')
    const timer = setTimeout(() => {
      output += `\n[ended after ${options.timeoutMs ?? 60_000} ms]\n`
      child.kill('SIGKILL')
    }, options.timeoutMs ?? 60_000)
    child.on('error', error => (output += error.message))
    child.on('close', code => {
      clearTimeout(timer)
      resolve({ code, output })
    })
  })
}

/**
 * Runs a program that must succeed.
 * @returns its output
 * @throws Error with the command and all that it wrote, when it fails
 */
export async function succeed(...[command, args, options]: Parameters<typeof runProgram>): Promise<string> {
  const { code, output } = await runProgram(command, args, options)
  if (code === 0) return output
  throw new Error(`${command} ${args.join(' ')}\nended with ${code ?? 'a signal'}:\n${output}`)
}
