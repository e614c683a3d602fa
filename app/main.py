"""One run of the app, whatever the page: dress, sign in, show."""

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app import auth, review_context, theme
from app.pages import agreement, case, worklist
from medssl.errors import BadInput


def main() -> None:
    """One run of the app."""
    st.set_page_config(page_title="Review", layout="wide", initial_sidebar_state="collapsed")
    theme.dress()
    access = review_context.access()
    reviewer = auth.reviewer(access)
    theme.header(access, reviewer)
    try:
        desk = review_context.desk(reviewer)
    except BadInput as error:
        theme.message("No predictions to read", str(error))
        st.stop()
    if refusal := st.session_state.pop("refusal", None):
        st.toast(refusal, icon=":material/block:")
    st.navigation(pages(desk), position="top").run()


def pages(desk: review_context.Desk) -> list[StreamlitPage]:
    """The pages that this reader may open."""
    first: StreamlitPage = st.Page(lambda: worklist.page(desk, second), title="Worklist", default=True)
    second: StreamlitPage = st.Page(lambda: case.page(desk, first), title="Case", url_path="case")
    third: StreamlitPage = st.Page(lambda: agreement.page(desk), title="Agreement", url_path="agreement")
    return [first, second, third] if desk.reviewer.may("compare") else [first, second]


if __name__ == "__main__":
    main()
