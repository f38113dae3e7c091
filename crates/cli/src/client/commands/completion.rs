//! `completion`: small scripts for shells. What can stand where, [`super::complete`] knows, which they ask at each TAB.

use super::App;
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, print};

const BASH: &str = r#"# bash completion for PROGRAM: PROGRAM itself knows what can stand where
_PROGRAM() {
    local cur=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD lines char prefix
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n =: cur words cword
    fi
    mapfile -t lines < <("${words[0]}" __complete "${words[@]:1:cword}" 2>/dev/null)
    COMPREPLY=()
    ((${#lines[@]})) || return
    if [[ ${lines[-1]} == :4 ]]; then
        compopt +o default 2>/dev/null
    fi
    unset "lines[-1]"
    COMPREPLY=("${lines[@]%%$'\t'*}")
    # What readline takes for words of their own is not written again.
    for char in : =; do
        if [[ $cur == *"$char"* && $COMP_WORDBREAKS == *"$char"* ]]; then
            prefix=${cur%"${cur##*"$char"}"}
            COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
        fi
    done
}
complete -o default -F _PROGRAM PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
# zsh completion for PROGRAM: PROGRAM itself knows what can stand where
_PROGRAM() {
    local -a lines described
    local line
    lines=("${(@f)$("${words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    for line in "${(@)lines[1,-2]}"; do
        if [[ $line == *$'\t'* ]]; then
            described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        else
            described+=("${line//:/\\:}")
        fi
    done
    if [[ ${lines[-1]} == :4 ]]; then
        _describe PROGRAM described
    else
        _files
    fi
}
if [[ $funcstack[1] == _PROGRAM ]]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
"#;

const FISH: &str = r#"# fish completion for PROGRAM: PROGRAM itself knows what can stand where
function __PROGRAM_asked
    set -l before (commandline -opc)
    command $before[1] __complete $before[2..] (commandline -ct) 2>/dev/null
end
function __PROGRAM_files
    __PROGRAM_asked | string match -q ':0'
end
complete -c PROGRAM -n __PROGRAM_files -F
complete -c PROGRAM -n 'not __PROGRAM_files' -f -a '(__PROGRAM_asked | string match -v ":*")'
"#;

/// `completion SHELL`.
///
/// # Errors
/// There is none for that shell.
pub fn generate(app: &App, p: &Parsed) -> anyhow::Result<u8> {
    let script = match p.args[0].as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        other => {
            return Err(
                Exit::new(1, format_args!("there is no completion for {other}: bash, zsh and fish have one")).into()
            );
        }
    };
    print(script.replace("PROGRAM", &app.program))?;
    Ok(0)
}
