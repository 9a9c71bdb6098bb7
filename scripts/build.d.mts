/** Bundles programs (name -> first source file, relative to the project) into a directory inside the project. */
export function buildAll(outdir?: string, programs?: Readonly<Record<string, string>>): Promise<void>
